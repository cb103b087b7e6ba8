"""From YAML files, the environment and flags to one checked ``Config``.

Later sources win: files in their order, then ``FOLKMOOT_*``, then flags. Mappings merge key by key, everything
else is replaced. All that is wrong is said at once, each with its place and a way out.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from config.checks import check_config
from config.convert import Converter, Given, spell
from config.errors import ConfigError
from config.schema import Config

ENVIRONMENT_PREFIX = "FOLKMOOT_"
OTHER_VARIABLES = frozenset({"FOLKMOOT_SPEC", "FOLKMOOT_CONFIG"})


def load_config(
    files: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    working_directory: Path | None = None,
) -> Config:
    """The configuration, checked. ``flags`` has the shape of the YAML. Raises ConfigError with all that is wrong."""
    here = (working_directory or Path.cwd()).absolute()
    tree: dict[str, Any] = {}
    for file in files:
        _merge(tree, _read(here / file))
    _merge(tree, _from_environment(os.environ if environment is None else environment, here))
    _merge(tree, {key: Given.wrap(value, "the command line", here) for key, value in (flags or {}).items()})
    converter = Converter(here)
    config = converter.convert(tree, Config, "")
    problems = converter.problems or check_config(config)
    if problems:
        raise ConfigError(problems)
    assert isinstance(config, Config)
    return dataclasses.replace(config, data_dir=str(here / config.data_dir))  # the default is relative


def _read(file: Path) -> dict[str, Any]:
    try:
        document = yaml.load(file.read_text("utf-8"), _Loader)
    except OSError as problem:
        raise ConfigError(
            [f"{file} cannot be read: {problem.strerror}. Check the path after --config"]
        ) from problem
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise ConfigError([f"{file} is not valid YAML: {problem}"]) from problem
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(
            [f"{file} must hold settings like `server_name: example.org`, not {spell(document)}"]
        )
    return {key: Given.wrap(value, str(file), file.parent) for key, value in document.items()}


def _from_environment(environment: Mapping[str, str], here: Path) -> dict[str, Any]:
    """``FOLKMOOT_DATABASE__ARGS__HOST=db`` is ``database: {args: {host: db}}``; lists are written as YAML."""
    tree: dict[str, Any] = {}
    for name in sorted(environment):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in OTHER_VARIABLES:
            continue
        keys = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        value: Any = Given(environment[name], f"environment variable {name}", here, text=True)
        for key in reversed(keys):
            value = Given({key: value}, f"environment variable {name}", here)
        _merge(tree, value.value)
    return tree


def _merge(tree: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, new in other.items():
        old = tree.get(key)
        if isinstance(old, Given) and isinstance(old.value, dict) and isinstance(new.value, dict):
            merged = dict(old.value)
            _merge(merged, new.value)
            tree[key] = Given(merged, new.source, new.folder)
        else:
            tree[key] = new


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, of which PyYAML would silently drop one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)
