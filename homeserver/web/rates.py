"""The `rc_*` settings as the names that routes take tokens by: ``message``, ``login.address``."""

from dataclasses import fields
from typing import Any

from config.schema import Config, RateLimit
from homeserver.web.limits import Rate


def rates_of(config: Config) -> dict[str, Rate]:
    """All rate limits that are turned on."""
    rates: dict[str, Rate] = {}
    for setting in fields(config):
        if setting.name.startswith("rc_"):
            _add(rates, setting.name[3:], getattr(config, setting.name))
    return rates


def _add(rates: dict[str, Rate], name: str, value: Any) -> None:
    if isinstance(value, RateLimit):
        rates[name] = Rate(value.per_second, value.burst_count)
        return
    if value is None:
        return
    for part in fields(value):
        inner = getattr(value, part.name)
        if isinstance(inner, RateLimit):
            rates[f"{name}.{part.name}"] = Rate(inner.per_second, inner.burst_count)
