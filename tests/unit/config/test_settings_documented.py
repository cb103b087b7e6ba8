"""Schema, sample.yaml and the manual name the same settings, with the same defaults."""

import dataclasses
import re
import types
import typing
from pathlib import Path
from typing import Any

import yaml

import config as config_package
from config import schema
from config.load import load_config

SAMPLE = Path(config_package.__path__[0]) / "sample.yaml"
MANUAL = Path(__file__).parents[3] / "docs/manual/configuration.md"
# Shown with an example, because the default is nothing or would say nothing.
EXAMPLES = {"listeners", "trusted_key_servers", "support"}


def settings(type_: Any, prefix: str = "") -> set[str]:
    found = set()
    hints = typing.get_type_hints(type_, include_extras=True)
    for name, hint in hints.items():
        found.add(prefix + name)
        for inner, mark in sections(hint):
            found |= settings(inner, f"{prefix}{name}{mark}.")
    return found


def sections(hint: Any) -> list[tuple[Any, str]]:
    """The dataclasses behind a type and how the path to them is written; rate limits are explained once for all."""
    if dataclasses.is_dataclass(hint):
        return [] if hint is schema.RateLimit else [(hint, "")]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return [found for option in arguments for found in sections(option)]
    if origin is tuple:
        return [(inner, "[]") for inner, _ in sections(arguments[0])]
    if arguments and len(arguments) == 2 and dataclasses.is_dataclass(arguments[1]):
        return [(arguments[1], ".*")]
    return []


def sample() -> str:
    """sample.yaml with every setting uncommented."""
    lines = SAMPLE.read_text().splitlines()
    return "\n".join(line[1:] for line in lines if line.startswith("#") and not line.startswith("##"))


def paths(value: Any, prefix: str = "") -> set[str]:
    found: set[str] = set()
    if isinstance(value, dict):
        for key, item in value.items():
            name = "*" if ":" in key else key
            found |= {prefix + name} | paths(item, f"{prefix}{name}.")
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        found |= paths(value[0], prefix[:-1] + "[].")
    return found


def test_every_setting_is_in_the_manual_and_no_other() -> None:
    documented = re.findall(r"^\| `([^`]+)` \|", MANUAL.read_text(), re.MULTILINE)
    assert len(documented) == len(set(documented))
    assert set(documented) == settings(schema.Config)


def test_every_setting_is_in_the_sample() -> None:
    shown = paths(yaml.safe_load(sample()))
    expected = settings(schema.Config) - {"listeners[].path"}
    assert expected - shown == set()


def test_sample_is_valid_and_shows_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "sample.yaml"
    file.write_text(sample())
    shown = load_config([file], environment={}, working_directory=tmp_path)
    plain = load_config(environment={}, working_directory=tmp_path)
    empty = (None, (), {})
    for field in dataclasses.fields(schema.Config):
        default = getattr(plain, field.name)
        if default not in empty and field.name not in EXAMPLES:
            assert getattr(shown, field.name) == default, field.name


def test_commented_out_it_changes_nothing(tmp_path: Path) -> None:
    assert load_config([SAMPLE], environment={}, working_directory=tmp_path) == load_config(
        environment={}, working_directory=tmp_path
    )


def test_manual_tells_the_defaults() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| `([^`]+)` \|", MANUAL.read_text(), re.MULTILINE))
    shown = yaml.safe_load(sample())
    checked = 0
    for name, text in rows.items():
        if name in EXAMPLES:
            continue
        assert yaml.safe_load(text) == shown[name], name
        checked += 1
    assert checked > 30
