"""Every setting does something: some code outside of ``config/`` reads it, or it reaches what it is for."""

import ast
import dataclasses
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import config as config_package
from config import schema
from homeserver.web.rates import rates_of
from storage.tables.database_open import external_parameters
from tests.unit.config.test_settings_documented import sections

ROOT = Path(config_package.__path__[0]).parent


@cache
def sources() -> list[tuple[set[str], set[str]]]:
    """Of each module outside of ``config/``: the attributes that it reads, and the names that it uses."""
    found = []
    for package in ("homeserver", "federation", "storage"):
        for file in (ROOT / package).rglob("*.py"):
            attributes, names = set[str](), set[str]()
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                    attributes.add(node.attr)
                elif isinstance(node, ast.Name):
                    names.add(node.id)
            found.append((attributes, names))
    return found


def read_settings(type_: type, section: str = "") -> Iterator[tuple[str, str, str]]:
    """``(path, owner, name)`` of settings that are attributes; ``owner`` names the section or its class."""
    for name, hint in typing.get_type_hints(type_, include_extras=True).items():
        if (name.startswith("rc_") and name != "rc_federation") or (type_ is schema.DatabaseArgs and name != "cp_max"):
            continue
        yield f"{section}{name}", type_.__name__, name
        for inner, _ in sections(hint):
            yield from read_settings(inner, f"{section}{name}.")


SETTINGS = list(read_settings(schema.Config))
SECTIONS = {
    inner.__name__: name
    for type_ in vars(schema).values()
    if dataclasses.is_dataclass(type_)
    for name, hint in typing.get_type_hints(type_, include_extras=True).items()
    for inner, _ in sections(hint)
}


@pytest.mark.parametrize(("path", "owner", "name"), SETTINGS, ids=[path for path, _, _ in SETTINGS])
def test_a_setting_is_read(path: str, owner: str, name: str) -> None:
    """A module reads it that also knows the section it belongs to: many have names that others have as well."""
    section = SECTIONS.get(owner, "config")
    assert any(
        name in attributes and (owner in names or section in attributes or section in names)
        for attributes, names in sources()
    )


def test_rate_limits_are_those_of_the_settings() -> None:
    """A setting whose name nothing takes from does nothing; a name that no setting has limits nothing."""
    named = set()
    for file in (ROOT / "homeserver").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                named |= set(limit_names(node))
    assert named == rates_of(schema.Config()).keys()


def limit_names(call: ast.Call) -> Iterator[str]:
    """The limit that a ``Route`` names, or ``take`` and ``wait`` take from."""
    function = call.func
    if isinstance(function, ast.Name) and function.id == "Route":
        wanted = [*call.args[4:5], *(keyword.value for keyword in call.keywords if keyword.arg == "limit")]
    elif isinstance(function, ast.Attribute) and function.attr in ("take", "wait") and len(call.args) > 1:
        wanted = call.args[:1]
    else:
        return
    yield from (node.value for node in wanted if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value)


@pytest.mark.parametrize("field", dataclasses.fields(schema.DatabaseArgs), ids=lambda field: field.name)
def test_what_libpq_needs_reaches_it(field: dataclasses.Field[object]) -> None:
    if field.name == "cp_max":  # not libpq's
        return
    value = 77 if "int" in str(field.type) else "there"
    given = schema.DatabaseSettings(args=dataclasses.replace(schema.DatabaseArgs(), **{field.name: value}))
    assert value in external_parameters(given).values()
