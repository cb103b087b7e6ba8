"""From the settings to the bounds of this package, each in the unit that it uses here."""

from config.schema import Config, RateLimit
from homeserver.web.http import ConnectionLimits, Timeouts
from homeserver.web.limits import Rate
from homeserver.web.socket import SocketSettings


def rates(config: Config) -> dict[str, Rate]:
    """The rate limits by the names that routes and services use; those set to null are left out."""
    login, joins, invites = config.rc_login, config.rc_joins, config.rc_invites
    settings: dict[str, RateLimit | None] = {
        "message": config.rc_message,
        "registration": config.rc_registration,
        "registration_token_validity": config.rc_registration_token_validity,
        "room_creation": config.rc_room_creation,
        "key_requests": config.rc_key_requests,
        "login.address": login.address if login else None,
        "login.account": login.account if login else None,
        "login.failed_attempts": login.failed_attempts if login else None,
        "joins.local": joins.local if joins else None,
        "joins.remote": joins.remote if joins else None,
        "invites.per_room": invites.per_room if invites else None,
        "invites.per_user": invites.per_user if invites else None,
        "invites.per_issuer": invites.per_issuer if invites else None,
    }
    return {name: Rate(limit.per_second, limit.burst_count) for name, limit in settings.items() if limit is not None}


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
