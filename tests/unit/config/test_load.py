"""config.load: files, environment, flags, secrets, and errors that help."""

from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigError
from config.load import load_config
from config.schema import Config, RateLimit


def load(tmp_path: Path, text: str = "", **more: Any) -> Config:
    file = tmp_path / "folkmoot.yaml"
    file.write_text(text)
    return load_config([file], environment=more.pop("environment", {}), working_directory=tmp_path, **more)


def problems(tmp_path: Path, text: str = "", **more: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **more)
    return caught.value.problems


def test_nothing_at_all_is_a_closed_server_on_the_loopback(tmp_path: Path) -> None:
    config = load_config(environment={}, working_directory=tmp_path)
    assert config.server_name == "localhost"
    assert [(one.port, one.bind_addresses) for one in config.listeners] == [(8008, ("127.0.0.1",))]
    assert config.database is None
    assert config.data_dir == str(tmp_path / "folkmoot-data")
    assert config.enable_registration is False


def test_values_of_every_kind(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        server_name: example.org
        listeners:
          - {port: 8448, bind_addresses: ["::"], tls: true}
          - {path: http.sock, mode: '0660'}
        tls_certificate_path: certificate.pem
        tls_private_key_path: /etc/key.pem
        default_room_version: 10
        session_lifetime: 30d
        refreshable_access_token_lifetime: 90000
        limits: {max_request_size: 2M}
        rc_message: null
        rc_login: {account: null}
        old_signing_keys: {"ed25519:old": {key: abc, expired_ts: 5}}
        federation_well_known_policy: {domains: {a.example: require}}
        extra_well_known_client_content: {a.b: {c: [1]}}
        """,
    )
    assert config.listeners[0].bind_addresses == ("::",)
    assert config.listeners[1].path == str(tmp_path / "http.sock")
    assert config.tls_certificate_path == str(tmp_path / "certificate.pem")
    assert config.tls_private_key_path == "/etc/key.pem"
    assert config.default_room_version == "10"
    assert config.session_lifetime == 30 * 86_400_000
    assert config.refreshable_access_token_lifetime == 90_000
    assert config.limits.max_request_size == 2 * 1024 * 1024
    assert config.rc_message is None
    assert config.rc_login is not None and config.rc_login.account is None
    assert config.rc_login.address == RateLimit(per_second=0.1, burst_count=10)
    assert config.old_signing_keys["ed25519:old"].expired_ts == 5
    assert config.federation_well_known_policy.domains == {"a.example": "require"}
    assert config.extra_well_known_client_content == {"a.b": {"c": [1]}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sever_name: a", "sever_name: unknown setting; did you mean server_name?"),
        ("listeners: [{prot: 1}]", "listeners[0].prot: unknown setting; did you mean port?"),
        ("rc_message: {per_secnd: 1}", "rc_message.per_secnd: unknown setting; did you mean per_second?"),
        ("registration_shared_secret_pth: x", "did you mean registration_shared_secret_path?"),
        ("frobnicate: 1", "frobnicate: unknown setting; see docs/manual/configuration.md"),
        ("enable_metrics: 'yes'", "enable_metrics: must be true or false, not 'yes'"),
        ("database_connections: true", "database_connections: must be a whole number, not True"),
        ("session_lifetime: 3 days", "session_lifetime: must be a duration like"),
        ("session_lifetime: -1", "session_lifetime: must be a duration like"),
        ("limits: {max_request_size: 50X}", "limits.max_request_size: must be a size like"),
        ("rc_message: {per_second: .nan}", "rc_message.per_second: must be a number"),
        ("limits: 7", "limits: must hold further settings, not 7"),
        ("listeners: {port: 1}", "listeners: must be a list, not a mapping"),
        ("log_format: xml", "log_format: 'xml' is not one of text, json"),
        ("terms: {name: x}", "terms: needs url"),
        ("server_name: a\nserver_name: b", "the key 'server_name' is there twice"),
        ("- a", "must hold settings like"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_errors_name_file_place_and_way_out(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, text)
    assert expected in found[0]
    assert str(tmp_path / "folkmoot.yaml") in found[0]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    assert len(problems(tmp_path, "sever_name: a\nlimits: {max_conections: 1}\nlog_level: loud")) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("server_name: 'a b'", "server_name"),
        ("server_name: example.org:99999", "server_name"),
        ("server_name: https://example.org", "server_name"),
        ("default_room_version: 13", "default_room_version"),
        ("listeners: []", "listeners"),
        ("listeners: [{port: 1, path: x}]", "either port"),
        ("listeners: [{port: 70000}]", "70000"),
        ("listeners: [{port: 1, tls: true}]", "tls_certificate_path"),
        ("listeners: [{port: 1, trusted_proxies: [proxy]}]", "trusted_proxies"),
        ("database: {args: {host: a}}", "dbname"),
        ("rc_joins: {local: {per_second: 1, burst_count: 0}}", "rc_joins.local"),
        ("rc_federation: {concurrent: 0}", "rc_federation"),
        ("public_baseurl: example.org", "public_baseurl"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in problems(tmp_path, text)[0]


def test_b11_registration_is_open_only_when_that_is_said_twice(tmp_path: Path) -> None:
    assert "robots" in problems(tmp_path, "enable_registration: true")[0]
    assert load(tmp_path, "enable_registration: true\nregistration_requires_token: true").enable_registration
    text = "enable_registration: true\nenable_registration_without_verification: true"
    assert load(tmp_path, text).enable_registration


@pytest.mark.parametrize("secret", ["changeme", "Registration_Shared_Secret", "<PRIVATE STRING>", "a1b2c3"])
def test_b06_well_known_and_short_secrets_stop_the_start(tmp_path: Path, secret: str) -> None:
    found = problems(tmp_path, f"registration_shared_secret: '{secret}'")
    assert "openssl rand" in found[0]
    assert secret not in found[0]


def test_secrets_from_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a long enough secret\n")
    (tmp_path / "empty").write_text("\n")
    config = load(
        tmp_path,
        "registration_shared_secret_path: secret\ndatabase: {args: {dbname: a, password_path: secret}}",
    )
    assert config.registration_shared_secret == "a long enough secret"
    assert config.database is not None and config.database.args.password == "a long enough secret"
    assert "cannot be read" in problems(tmp_path, "registration_shared_secret_path: missing")[0]
    assert "is empty" in problems(tmp_path, "registration_shared_secret_path: empty")[0]
    both = "registration_shared_secret_path: secret\nregistration_shared_secret: another one"
    assert "keep one" in problems(tmp_path, both)[0]


def test_environment_wins_over_files_and_flags_over_both(tmp_path: Path) -> None:
    environment = {
        "FOLKMOOT_SERVER_NAME": "environment.example",
        "FOLKMOOT_DATA_DIR": "elsewhere",
        "FOLKMOOT_DATABASE__ARGS__DBNAME": "12345",
        "FOLKMOOT_DATABASE__ARGS__PORT": "6543",
        "FOLKMOOT_LISTENERS": "[{port: 9000}]",
        "FOLKMOOT_RC_MESSAGE": "null",
        "FOLKMOOT_RC_REGISTRATION__PER_SECOND": "9",
        "FOLKMOOT_ENABLE_METRICS": "true",
        "FOLKMOOT_SPEC": "of the tests",
        "PATH": "/bin",
    }
    text = "server_name: file.example\ndatabase: {args: {user: me}}"
    config = load(tmp_path, text, environment=environment, flags={"server_name": "flag.example"})
    assert config.server_name == "flag.example"
    assert config.data_dir == str(tmp_path / "elsewhere")
    assert config.database is not None
    assert (config.database.args.user, config.database.args.dbname) == ("me", "12345")
    assert config.database.args.port == 6543
    assert config.listeners[0].port == 9000
    assert config.rc_message is None
    assert config.rc_registration == RateLimit(per_second=9.0, burst_count=3)
    assert config.enable_metrics is True


def test_wrong_environment_is_named(tmp_path: Path) -> None:
    found = problems(tmp_path, environment={"FOLKMOOT_SEVER_NAME": "a"})
    assert found == [
        "environment variable FOLKMOOT_SEVER_NAME: sever_name: unknown setting; did you mean server_name?"
    ]
    found = problems(tmp_path, environment={"FOLKMOOT_LISTENERS": "["})
    assert "FOLKMOOT_LISTENERS" in found[0]


def test_later_files_win_key_by_key(tmp_path: Path) -> None:
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    first.write_text(
        "server_name: one.example\nlimits: {max_connections: 5, idle_timeout: 1m}\nfederation_domain_denylist: [a]"
    )
    second.write_text("limits: {max_connections: 6}\nfederation_domain_denylist: [b]")
    config = load_config([first, second], environment={})
    assert config.server_name == "one.example"
    assert (config.limits.max_connections, config.limits.idle_timeout) == (6, 60_000)
    assert config.federation_domain_denylist == ("b",)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config([tmp_path / "none.yaml"], environment={})
