"""Every setting, as frozen dataclasses: what the YAML may say, of which type, with which default.

The names are Synapse's where the meaning is the same. A field's type is its rule:

* ``Duration`` is written ``30d``, ``10m``, ``1500ms`` or a number of milliseconds, and held in **milliseconds**;
* ``Size`` is written ``50M``, ``64K`` or a number of bytes, and held in **bytes**;
* ``Secret`` may also be given through a file: the key with ``_path`` behind it names that file;
* ``FilePath`` is relative to the file that says it (to the working directory when given by flag or environment).

``docs/manual/configuration.md`` explains each one and ``config/sample.yaml`` shows each one; tests keep the three
together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

Duration = Annotated[int, "duration"]
Size = Annotated[int, "size"]
Secret = Annotated[str, "secret"]
FilePath = Annotated[str, "path"]

SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """A token bucket: ``burst_count`` actions at once, refilled at ``per_second``.

    ``null`` in its place turns it off.
    """

    per_second: float
    burst_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginLimits:
    """Limits on logging in, by client address, by account, and on wrong passwords of an account."""

    address: RateLimit | None = RateLimit(per_second=0.1, burst_count=10)
    account: RateLimit | None = RateLimit(per_second=0.1, burst_count=10)
    failed_attempts: RateLimit | None = RateLimit(per_second=0.17, burst_count=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinLimits:
    """Limits on joining rooms that this server is in (``local``) and that it is not in yet (``remote``), by user."""

    local: RateLimit | None = RateLimit(per_second=0.1, burst_count=10)
    remote: RateLimit | None = RateLimit(per_second=0.01, burst_count=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class InviteLimits:
    """Limits on invites: into one room, to one user, and by one user."""

    per_room: RateLimit | None = RateLimit(per_second=0.3, burst_count=10)
    per_user: RateLimit | None = RateLimit(per_second=0.003, burst_count=5)
    per_issuer: RateLimit | None = RateLimit(per_second=0.3, burst_count=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationLimits:
    """How much one other server may ask of this one within a window."""

    window_size: Duration = SECOND
    sleep_limit: int = 10
    sleep_delay: Duration = 500
    reject_limit: int = 50
    concurrent: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where the server answers: TCP (``port`` on each of ``bind_addresses``) or a Unix socket (``path``)."""

    port: int | None = None
    bind_addresses: tuple[str, ...] = ("127.0.0.1", "::1")
    tls: bool = False
    x_forwarded: bool = False
    trusted_proxies: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    path: FilePath | None = None
    mode: str = "0666"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseArgs:
    """What libpq needs to connect; ``cp_max`` is the number of connections."""

    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: Secret | None = None
    dbname: str | None = None
    database: str | None = None
    sslmode: str | None = None
    sslrootcert: FilePath | None = None
    sslcert: FilePath | None = None
    sslkey: FilePath | None = None
    passfile: FilePath | None = None
    service: str | None = None
    options: str | None = None
    application_name: str | None = None
    target_session_attrs: str | None = None
    connect_timeout: int = 5
    keepalives_idle: int = 10
    keepalives_interval: int = 10
    keepalives_count: int = 3
    cp_max: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """An external PostgreSQL 14 or newer. Without this section the server runs a private one in its data directory."""

    name: Literal["psycopg2"] = "psycopg2"
    url: Secret | None = None
    args: DatabaseArgs = DatabaseArgs()


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordPolicy:
    """What a new password has to contain. The minimum length holds with ``enabled`` off as well, at 8."""

    enabled: bool = False
    minimum_length: int = 8
    require_digit: bool = False
    require_symbol: bool = False
    require_lowercase: bool = False
    require_uppercase: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordSettings:
    """Logging in with a password, and what a password has to be."""

    enabled: bool = True
    policy: PasswordPolicy = PasswordPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class UiAuth:
    """User-interactive authentication: how long a session stays open."""

    session_timeout: Duration = 15 * MINUTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """A document that people accept when they register (the ``m.login.terms`` stage)."""

    name: str
    url: str
    version: str = "1.0"
    policy_name: str = "privacy_policy"
    language: str = "en"


@dataclass(frozen=True, slots=True, kw_only=True)
class SupportContact:
    """Somebody who helps the users of this server: a Matrix ID, an e-mail address or both."""

    role: str = "m.role.admin"
    matrix_id: str | None = None
    email_address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """What ``/.well-known/matrix/support`` tells; empty: nothing."""

    contacts: tuple[SupportContact, ...] = ()
    support_page: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """Who is online. Off: nothing is sent, stored or accepted. ``federation``: whether other servers are told, and heard."""

    enabled: bool = True
    federation: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDirectory:
    """Searching for people."""

    enabled: bool = True
    search_all_users: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketSettings:
    """The WebSocket way to sync."""

    enabled: bool = True
    hello_timeout: Duration = 10 * SECOND
    ping_interval: Duration = 30 * SECOND
    ping_timeout: Duration = 20 * SECOND
    max_frame_size: Size = 1024 * 1024
    compression: bool = True
    allowed_origins: tuple[str, ...] = ("*",)
    max_connections_per_user: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what callers may ask of the server."""

    max_request_size: Size = 1024 * 1024
    max_connections: int = 10_000
    max_connections_per_address: int = 1_000
    request_timeout: Duration = MINUTE
    idle_timeout: Duration = 3 * MINUTE
    max_inbox_size: Size = 50 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Compatibility:
    """Old habits that some clients and test suites need; each is off unless turned on."""

    access_token_in_query: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OldSigningKey:
    """A retired public key (unpadded base64) and when it stopped signing, in milliseconds."""

    key: str
    expired_ts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKeyServer:
    """A notary: a server that is asked for other servers' keys; ``verify_keys`` pins its own."""

    server_name: str
    verify_keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WellKnownPolicy:
    """Signed well-known records: verify when present (``prefer``), insist (``require``), or don't look (``ignore``)."""

    default: Literal["prefer", "require", "ignore"] = "prefer"
    domains: Mapping[str, Literal["prefer", "require", "ignore"]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationSettings:
    """Time limits and retries of requests to other servers."""

    client_timeout: Duration = MINUTE
    destination_min_retry_interval: Duration = 30 * SECOND
    destination_retry_multiplier: float = 2.0
    destination_max_retry_interval: Duration = DAY
    max_state_size: Size = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration. Frozen: a change is a restart."""

    server_name: str = "localhost"
    public_baseurl: str | None = None
    data_dir: FilePath = "folkmoot-data"
    listeners: tuple[Listener, ...] = (Listener(port=8008, bind_addresses=("127.0.0.1",)),)
    tls_certificate_path: FilePath | None = None
    tls_private_key_path: FilePath | None = None
    database: DatabaseSettings | None = None
    database_connections: int = 4
    log_level: Literal["debug", "info", "warn", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    enable_metrics: bool = False
    serve_server_wellknown: bool = False
    extra_well_known_client_content: Mapping[str, Any] = field(default_factory=dict)

    support: Support | None = None

    enable_registration: bool = False
    enable_registration_without_verification: bool = False
    registration_requires_token: bool = False
    registration_shared_secret: Secret | None = None
    allow_guest_access: bool = False
    terms: Terms | None = None
    password_config: PasswordSettings = PasswordSettings()
    ui_auth: UiAuth = UiAuth()
    session_lifetime: Duration | None = None
    refreshable_access_token_lifetime: Duration | None = 5 * MINUTE
    refresh_token_lifetime: Duration | None = None
    nonrefreshable_access_token_lifetime: Duration | None = None

    default_room_version: str = "12"
    allow_public_rooms_without_auth: bool = True
    presence: Presence = Presence()
    user_directory: UserDirectory = UserDirectory()
    websocket: WebSocketSettings = WebSocketSettings()
    limits: Limits = Limits()
    compatibility: Compatibility = Compatibility()

    rc_message: RateLimit | None = RateLimit(per_second=0.2, burst_count=10)
    rc_registration: RateLimit | None = RateLimit(per_second=0.17, burst_count=3)
    rc_registration_token_validity: RateLimit | None = RateLimit(per_second=0.1, burst_count=5)
    rc_registration_available: RateLimit | None = RateLimit(per_second=1, burst_count=20)
    rc_login: LoginLimits | None = LoginLimits()
    rc_joins: JoinLimits | None = JoinLimits()
    rc_invites: InviteLimits | None = InviteLimits()
    rc_room_creation: RateLimit | None = RateLimit(per_second=0.016, burst_count=10)
    rc_key_requests: RateLimit | None = RateLimit(per_second=20, burst_count=100)
    rc_user_directory: RateLimit | None = RateLimit(per_second=1, burst_count=50)
    rc_federation: FederationLimits | None = FederationLimits()

    enable_federation: bool = True
    signing_key_path: FilePath | None = None
    old_signing_keys: Mapping[str, OldSigningKey] = field(default_factory=dict)
    key_refresh_interval: Duration = DAY
    trusted_key_servers: tuple[TrustedKeyServer, ...] = (TrustedKeyServer(server_name="matrix.org"),)
    federation: FederationSettings = FederationSettings()
    federation_verify_certificates: bool = True
    federation_certificate_verification_whitelist: tuple[str, ...] = ()
    federation_custom_ca_list: tuple[FilePath, ...] = ()
    federation_domain_whitelist: tuple[str, ...] | None = None
    federation_domain_denylist: tuple[str, ...] = ()
    federation_ip_range_blacklist: tuple[str, ...] = (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
        "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "::/128", "::1/128", "64:ff9b::/96", "100::/64",
        "2001:db8::/32", "2001::/23", "2002::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
    )
    federation_well_known_policy: WellKnownPolicy = WellKnownPolicy()
    allow_public_rooms_over_federation: bool = False
    allow_profile_lookup_over_federation: bool = True
    allow_device_name_lookup_over_federation: bool = False
