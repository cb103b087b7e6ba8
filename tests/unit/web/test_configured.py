"""Settings arrive in the right unit and under the right name."""

import dataclasses

from config.schema import Config, LoginLimits, RateLimit
from homeserver.web import configured
from homeserver.web.limits import Limits, Rate
from homeserver.web.rates import rates_of


def test_every_rate_limit_of_the_settings_has_a_name() -> None:
    config = Config()
    counted = 0
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name.startswith("rc_") and field.name != "rc_federation":
            counted += 1 if isinstance(value, RateLimit) else len(dataclasses.fields(value))
    rates = rates_of(config)
    assert len(rates) == counted
    Limits(rates, lambda: 0.0)


def test_null_turns_a_limit_off() -> None:
    config = Config(rc_message=None, rc_joins=None, rc_login=LoginLimits(account=None))
    names = rates_of(config).keys()
    assert not names & {"message", "joins.local", "joins.remote", "login.account"}
    assert rates_of(config)["login.address"] == Rate(0.1, 10)


def test_milliseconds_become_seconds() -> None:
    config = Config()
    assert configured.timeouts(config).request == 60 and configured.timeouts(config).idle == 180
    assert configured.socket_settings(config).ping_interval == 30
    assert configured.connection_limits(config).per_address == 1000
