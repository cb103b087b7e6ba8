"""What federation's wire needs from whoever keeps the state of destinations."""

from typing import Protocol


class Destinations(Protocol):
    """Which servers are not to be bothered for now: the back-off of each, durable elsewhere."""

    def refused_until(self, server_name: str) -> int | None:
        """When to try again (milliseconds since the epoch), None when nothing speaks against trying now."""

    def succeeded(self, server_name: str) -> None:
        """It answered, be it with a refusal, or it called us: it is alive."""

    def failed(self, server_name: str, reason: str) -> None:
        """It could not be reached, did not answer in time, or has trouble of its own (5xx)."""
