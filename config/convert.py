"""Plain YAML values into the types of ``config.schema``, with errors that name source, path and nearest key."""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping as AbstractMapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml

_DURATION_UNITS = {
    "": 1,
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
    "y": 365 * 86_400_000,
}
_SIZE_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_LARGEST = 2**53 - 1


class Given:
    """A value with where it was given. ``text``: it came as a string whatever its type (from the environment)."""

    __slots__ = ("folder", "source", "text", "value")

    def __init__(self, value: Any, source: str, folder: Path, text: bool = False) -> None:
        self.value = value
        self.source = source
        self.folder = folder
        self.text = text

    @classmethod
    def wrap(cls, value: Any, source: str, folder: Path) -> "Given":
        """A whole tree of YAML, each mapping's values marked with their source."""
        if isinstance(value, dict):
            value = {key: cls.wrap(item, source, folder) for key, item in value.items()}
        return cls(value, source, folder)

    def plain(self) -> Any:
        """The tree without the marks."""
        if isinstance(self.value, dict):
            return {
                key: item.plain() if isinstance(item, Given) else item for key, item in self.value.items()
            }
        return self.value


class _Wrong(Exception):
    """One value that does not fit."""


class Converter:
    """Converts a tree and collects every problem instead of stopping at the first."""

    def __init__(self, folder: Path) -> None:
        self.problems: list[str] = []
        self._source = "the configuration"
        self._folder = folder

    def convert(self, tree: Any, type_: Any, path: str, base: Any = None) -> Any:
        """``tree`` as ``type_``, or None after adding to ``problems``.

        A section that gives some of its settings has the others from ``base``, the section that is there by default.
        """
        text = False
        if isinstance(tree, Given):
            self._source, self._folder, text, tree = tree.source, tree.folder, tree.text, tree.value
        try:
            return self._value(_from_text(tree, type_) if text else tree, type_, path, base)
        except _Wrong as wrong:
            self.problems.append(f"{self._source}: {path}: {wrong}")
            return None

    def _value(self, value: Any, type_: Any, path: str, base: Any) -> Any:
        origin = get_origin(type_)
        if origin in (Union, types.UnionType):
            inner = [option for option in get_args(type_) if option is not type(None)]
            return None if value is None else self._value(value, inner[0], path, base)
        if origin is typing.Annotated:
            return self._marked(value, type_.__metadata__[0])
        if dataclasses.is_dataclass(type_):
            return self._section(value, type_, path, base)
        if origin is tuple:
            return self._list(value, get_args(type_)[0], path)
        if origin is AbstractMapping:
            return self._mapping(value, get_args(type_)[1], path)
        if origin is Literal:
            if value not in get_args(type_) or isinstance(value, bool):
                raise _Wrong(f"{spell(value)} is not one of {', '.join(map(str, get_args(type_)))}")
            return value
        return value if type_ is Any else _scalar(value, type_)

    def _section(self, value: Any, type_: Any, path: str, base: Any) -> Any:
        if not isinstance(value, dict):
            raise _Wrong(f"must hold further settings, not {spell(value)}")
        hints = typing.get_type_hints(type_, include_extras=True)
        secrets = {f"{name}_path": name for name, hint in hints.items() if _marker(hint) == "secret"}
        arguments = {}
        for key, item in value.items():
            place = f"{path}.{key}" if path else str(key)
            if key in hints:
                arguments[key] = self.convert(item, hints[key], place, _default(type_, key, base))
            elif key in secrets:
                if value.get(secrets[key]) is not None:
                    self.problems.append(
                        f"{_source(item, self._source)}: {place}: {secrets[key]} is given as well; keep one"
                    )
                arguments[secrets[key]] = self._secret(item, place)
            else:
                self.problems.append(
                    f"{_source(item, self._source)}: {place}: unknown setting{_hint(key, [*hints, *secrets])}"
                )
        try:
            return type_(**arguments) if base is None else dataclasses.replace(base, **arguments)
        except TypeError:
            missing = [
                field.name
                for field in dataclasses.fields(type_)
                if field.name not in arguments
                and field.default is field.default_factory is dataclasses.MISSING
            ]
            raise _Wrong(f"needs {' and '.join(missing)}") from None

    def _secret(self, item: Any, path: str) -> str | None:
        """The content of the file that a ``_path`` twin names, without the line end."""
        file = self.convert(item, typing.Annotated[str, "path"], path)
        if file is None:
            return None
        try:
            secret = Path(file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as problem:
            self.problems.append(f"{self._source}: {path}: {file} cannot be read: {problem}")
            return None
        if not secret:
            self.problems.append(f"{self._source}: {path}: {file} is empty; put the secret into it")
        return secret

    def _list(self, value: Any, type_: Any, path: str) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise _Wrong(f"must be a list, not {spell(value)}")
        source, folder = self._source, self._folder
        items = [Given.wrap(item, source, folder) for item in value]
        return tuple(self.convert(item, type_, f"{path}[{index}]") for index, item in enumerate(items))

    def _mapping(self, value: Any, type_: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _Wrong(f"must be a mapping, not {spell(value)}")
        if type_ is Any:
            return {
                str(key): item.plain() if isinstance(item, Given) else item for key, item in value.items()
            }
        return {str(key): self.convert(item, type_, f"{path}.{key}") for key, item in value.items()}

    def _marked(self, value: Any, marker: str) -> Any:
        if marker == "duration":
            return parse_duration(value)
        if marker == "size":
            return parse_size(value)
        text = _scalar(value, str)
        return str(self._folder / text) if marker == "path" else text


def parse_duration(value: Any) -> int:
    """``30d``, ``1500ms`` or a number of milliseconds, in milliseconds. Raises an error that says so."""
    return _with_unit(
        value, _DURATION_UNITS, "a duration like 30s, 10m, 24h, 30d, or a number of milliseconds"
    )


def parse_size(value: Any) -> int:
    """``50M``, ``64K`` or a number of bytes, in bytes."""
    return _with_unit(value, _SIZE_UNITS, "a size like 64K, 50M, 1G, or a number of bytes")


def spell(value: Any) -> str:
    """A value as the reader of an error wrote it."""
    names = {dict: "a mapping", list: "a list", type(None): "nothing"}
    return names.get(type(value)) or repr(value)


def _with_unit(value: Any, units: dict[str, int], wanted: str) -> int:
    match = re.fullmatch(
        r"(\d{1,15})([A-Za-z]{0,2})", value if isinstance(value, str) else str(value), re.ASCII
    )
    if isinstance(value, bool) or match is None or match[2] not in units:
        raise _Wrong(f"must be {wanted}, not {spell(value)}")
    number = int(match[1]) * units[match[2]]
    if number > _LARGEST:
        raise _Wrong(f"{spell(value)} is too much")
    return number


def _scalar(value: Any, type_: Any) -> Any:
    if type_ is float and type(value) in (int, float) and value == value and abs(value) != float("inf"):
        return float(value)
    if type_ is int and type(value) is int and abs(value) <= _LARGEST:
        return value
    if type_ in (bool, str) and type(value) is type_:
        return value
    if type_ is str and type(value) in (int, float):
        return str(value)  # default_room_version: 12
    wanted = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}[type_]
    raise _Wrong(f"must be {wanted}, not {spell(value)}")


def _from_text(text: str, type_: Any) -> Any:
    """A string of the environment: as it is where text is wanted, YAML otherwise."""
    options = [option for option in get_args(type_) if option is not type(None)]
    if get_origin(type_) in (Union, types.UnionType):
        if text in ("", "null"):
            return None
        type_ = options[0]
    if type_ is str or _marker(type_) is not None or get_origin(type_) is Literal:
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise _Wrong(f"{text!r} is not valid YAML") from None


def _marker(type_: Any) -> str | None:
    """``secret``, ``path``, … of a type or of what it is an option of."""
    for option in (type_, *get_args(type_)):
        if get_origin(option) is typing.Annotated:
            return str(option.__metadata__[0])
    return None


def _default(type_: Any, name: str, base: Any) -> Any:
    """What a setting is when nothing is said, if that is a section."""
    field = next(field for field in dataclasses.fields(type_) if field.name == name)
    default = field.default if base is None else getattr(base, name)
    return default if dataclasses.is_dataclass(default) else None


def _source(item: Any, default: str) -> str:
    return item.source if isinstance(item, Given) else default


def _hint(key: Any, known: list[str]) -> str:
    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
    return (
        f"; did you mean {near[0]}?"
        if near
        else "; see docs/manual/configuration.md for those that there are"
    )
