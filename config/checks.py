"""Settings that are each of the right type and still cannot be: what contradicts, what is unsafe."""

import ipaddress
import re
from collections.abc import Iterator

from config.schema import Config, Listener, RateLimit

_SERVER_NAME = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,230})(:(\d{1,5}))?", re.ASCII)
_ROOM_VERSIONS = tuple(str(number) for number in range(1, 13))
# What documentation, examples and templates put where a secret belongs.
_WELL_KNOWN_SECRETS = frozenset(
    {
        "<private string>",
        "changeme",
        "change_me",
        "change-me",
        "secret",
        "password",
        "shared_secret",
        "sharedsecret",
        "registration_shared_secret",
        "folkmoot",
        "synapse",
        "test",
        "example",
        "random",
        "your_secret_here",
        "insecure",
    }
)
SHORTEST_SECRET = 8


def check_config(config: Config) -> list[str]:
    """A sentence for each thing that has to change before the server may start."""
    return [
        *_names(config),
        *_listeners(config),
        *_registration(config),
        *_database(config),
        *_limits(config),
        *_networks(config),
    ]


def _names(config: Config) -> Iterator[str]:
    match = _SERVER_NAME.fullmatch(config.server_name)
    if match is None or (match[3] is not None and not 0 < int(match[3]) < 65536):
        yield f"server_name: {config.server_name!r} is not a server name; write it like example.org or example.org:8448"
    if config.public_baseurl is not None and not re.fullmatch(
        r"https?://[^\s/?#]+(/[^\s?#]*)?", config.public_baseurl
    ):
        yield "public_baseurl: must be a URL like https://matrix.example.org/"
    if config.default_room_version not in _ROOM_VERSIONS:
        yield f"default_room_version: {config.default_room_version!r} is not one of {', '.join(_ROOM_VERSIONS)}"


def _listeners(config: Config) -> Iterator[str]:
    if not config.listeners:
        yield "listeners: the server needs at least one; leave the setting out for 127.0.0.1:8008"
    for index, listener in enumerate(config.listeners):
        for problem in _listener(config, listener):
            yield f"listeners[{index}]: {problem}"


def _listener(config: Config, listener: Listener) -> Iterator[str]:
    if (listener.port is None) == (listener.path is None):
        yield "needs either port (TCP) or path (Unix socket)"
    if listener.port is not None and not 0 <= listener.port < 65536:
        yield f"port {listener.port} is not between 0 and 65535"
    if not re.fullmatch("0?[0-7]{3}", listener.mode):
        yield f"mode {listener.mode!r} is not an octal file mode like '0660' (in quotes)"
    if listener.tls and not (config.tls_certificate_path and config.tls_private_key_path):
        yield "tls needs tls_certificate_path and tls_private_key_path"
    yield from _not_networks(listener.trusted_proxies, "trusted_proxies")


def _registration(config: Config) -> Iterator[str]:
    if config.enable_registration and not (
        config.registration_requires_token or config.enable_registration_without_verification
    ):
        yield (
            "enable_registration: anybody could register, robots included. Set registration_requires_token: true, "
            "or enable_registration_without_verification: true if that is what you want"
        )
    secret = config.registration_shared_secret
    if secret is not None and (len(secret) < SHORTEST_SECRET or secret.lower() in _WELL_KNOWN_SECRETS):
        yield (
            "registration_shared_secret: whoever guesses it can make administrators; "
            "replace it by the output of `openssl rand -hex 32`"
        )


def _database(config: Config) -> Iterator[str]:
    settings = config.database
    if settings is not None and settings.url is None:
        args = settings.args
        if not (args.dbname or args.database or args.service):
            yield "database: needs url, or args with dbname"
    if settings is not None and settings.args.cp_max is not None and not 1 <= settings.args.cp_max <= 100:
        yield "database.args.cp_max: must be between 1 and 100"
    if not 1 <= config.database_connections <= 20:
        yield "database_connections: must be between 1 and 20"


def _limits(config: Config) -> Iterator[str]:
    for path, limit in _rate_limits(config, ""):
        if limit.per_second < 0 or limit.burst_count < 1:
            yield f"{path}: per_second must not be negative and burst_count at least 1; `{path}: null` is no limit"
    peers = config.rc_federation
    if peers is not None and min(peers.window_size, peers.reject_limit, peers.concurrent) < 1:
        yield "rc_federation: window_size, reject_limit and concurrent are at least 1; `rc_federation: null` is no limit"
    if config.password_config.policy.minimum_length > 512:
        yield "password_config.policy.minimum_length: no password may be longer than 512 characters"


def _rate_limits(section: object, path: str) -> Iterator[tuple[str, RateLimit]]:
    for name in getattr(section, "__dataclass_fields__", ()):
        value = getattr(section, name)
        place = f"{path}.{name}" if path else name
        if isinstance(value, RateLimit):
            yield place, value
        elif place.startswith("rc_"):
            yield from _rate_limits(value, place)


def _networks(config: Config) -> Iterator[str]:
    yield from _not_networks(config.federation_ip_range_blacklist, "federation_ip_range_blacklist")


def _not_networks(texts: tuple[str, ...], path: str) -> Iterator[str]:
    for text in texts:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            yield f"{path}: {text!r} is not an address or a network like 10.0.0.0/8"
