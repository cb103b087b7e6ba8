"""`GET /metrics`: gauges in Prometheus' text format, read from the services when somebody asks.

Nothing is counted on the hot path for it; what costs something to know is asked of whoever knows it anyway.
"""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from homeserver.web.call import Answer, Call
from homeserver.web.routes import Auth, Route

Stats = Callable[[], Mapping[str, float]]


class StatsCollector(Collector):
    """Turns the `stats()` of the services into gauges called ``folkmoot_<service>_<name>``."""

    def __init__(self, sources: Mapping[str, Stats]) -> None:
        self._sources = sources

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge for each number."""
        for service, stats in self._sources.items():
            for name, value in stats().items():
                yield GaugeMetricFamily(f"folkmoot_{service}_{name}", f"{name} of {service}", value=value)


class Metrics:
    """The endpoint; answers only where `enable_metrics` is set."""

    def __init__(self, sources: Mapping[str, Stats]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(StatsCollector(sources))
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def routes(self) -> list[Route]:
        """The route."""
        return [Route("GET", "/metrics", self.get_metrics, Auth.NONE)]

    def get_metrics(self, call: Call) -> Answer:
        """All gauges of now."""
        return Answer(200, generate_latest(self._registry), "text/plain; version=0.0.4; charset=utf-8")
