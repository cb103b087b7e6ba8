"""One running homeserver: its services, and the two ways in, requests and sockets."""

from homeserver.metrics import Metrics, Stats
from homeserver.operations import operations_of, operator_routes
from homeserver.services import Services
from homeserver.sync.live import LiveSync
from homeserver.sync.live_frames import LiveFrames
from homeserver.web.router import Route, Router


class Homeserver:
    """The services behind a router for requests and a live sync for sockets."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.router = Router(
            [*operations_of(services), *self._metrics()],
            services.accounts.authenticator,
            services.limits,
            query_access_token=services.config.compatibility.access_token_in_query,
            body_limit=services.config.limits.max_request_size,
        )
        self.live = LiveSync(
            log=services.log,
            feed=services.feed,
            memberships=services.memberships,
            ignored=services.sync.ignored,
            reader=services.sync.reader,
            filters=services.filters,
            presence=services.sync.presence,
            unread=services.unread,
            frames=LiveFrames(services.log, services.sync.typing, services.sync.presence, services.now_ms),
            authenticator=services.accounts.authenticator,
            calls=self.router,
            clock=services.reactor,
            now_ms=services.now_ms,
            hello_timeout=services.config.websocket.hello_timeout / 1000,
        )
        services.accounts.authenticator.on_revoked.append(self.live.revoked)
        services.accounts.authenticator.on_locked.append(self.live.locked)
        self.operator_router = Router(operator_routes(services), services.accounts.authenticator, services.limits)
        services.log.on_stall = self._log_stalled

    def _log_stalled(self, stalled: bool) -> None:
        for router in (self.router, self.operator_router):
            router.writes.stall(stalled)

    def _metrics(self) -> list[Route]:
        return Metrics(self.stats()).routes() if self.services.config.enable_metrics else []

    def stats(self) -> dict[str, Stats]:
        """Where the gauges of `/metrics` come from."""
        services = self.services
        return {
            "log": lambda: {"position": services.log.position, "commits": services.log.groups, "stalled": services.log.stalled},
            "database": services.database.stats,
            "sync": lambda: {"waiting_polls": services.feed.waiting, "sockets": self.live.connections},
            **({} if services.federation is None else {"federation": services.federation.stats}),
        }
