"""One row of the table: what was done how often, how long it took, and what it cost the server."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field

from tests.bench.process_tree import cpu_seconds
from tests.bench.servers import Server


@dataclass
class Row:
    """A measured row. ``cpu_ms`` is per operation; times are in milliseconds; None where there is none.

    ``coarse``: so little CPU was used in all that the kernel's 10 ms steps make ``cpu_ms`` a rough figure.
    """

    name: str
    operations: int = 0
    seconds: float = 0.0
    cpu_ms: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    coarse: bool = False
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {**asdict(self), "per_second": self.per_second}


def percentile(sorted_values: list[float], percent: float) -> float | None:
    """Nearest-rank percentile of values in order."""
    if not sorted_values:
        return None
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * percent / 100))]


COARSE_BELOW = 0.3
"""CPU seconds of a row under which a step of 10 ms is more than 3 %."""


class Timer:
    """Collects how long single operations took."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []

    async def time(self, awaitable: Awaitable[object]) -> object:
        """Await, and note how long it took."""
        began = time.perf_counter()
        result = await awaitable
        self.milliseconds.append((time.perf_counter() - began) * 1000)
        return result


async def measure(server: Server, name: str, work: Callable[[Timer], Awaitable[int]]) -> Row:
    """Run `work`, which gives the number of its operations, and note what it took and what it cost."""
    timer = Timer()
    cpu, began = cpu_seconds(server.roots), time.perf_counter()
    operations = await work(timer)
    seconds = time.perf_counter() - began
    cpu = cpu_seconds(server.roots) - cpu
    values = sorted(timer.milliseconds)
    return Row(
        name,
        operations,
        seconds,
        cpu * 1000 / operations if operations else None,
        percentile(values, 50),
        percentile(values, 95),
        percentile(values, 99),
        coarse=cpu < COARSE_BELOW,
    )
