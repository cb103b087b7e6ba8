"""From the settings to the bounds on connections, each in the unit that it is used in here (rates: `rates`)."""

from config.schema import Config
from homeserver.web.http import ConnectionLimits, Timeouts
from homeserver.web.socket import SocketSettings


def timeouts(config: Config) -> Timeouts:
    """How long connections may take."""
    return Timeouts(config.limits.request_timeout / 1000, config.limits.idle_timeout / 1000)


def connection_limits(config: Config) -> ConnectionLimits:
    """How many connections there may be."""
    return ConnectionLimits(config.limits.max_connections, config.limits.max_connections_per_address)


def socket_settings(config: Config) -> SocketSettings:
    """The bounds of WebSocket connections."""
    settings = config.websocket
    return SocketSettings(
        allowed_origins=settings.allowed_origins,
        max_message=settings.max_frame_size,
        ping_interval=settings.ping_interval / 1000,
        ping_timeout=settings.ping_timeout / 1000,
        per_user=settings.max_connections_per_user,
        compression=settings.compression,
    )
