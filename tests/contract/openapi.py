"""The Client-Server API as the specification's OpenAPI files describe it: operations, with their schemas resolved.

The files stay where they are: `FOLKMOOT_SPEC` names their folder, by default ``shared/spec`` beside the checkout.
"""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

METHODS = ("get", "put", "post", "delete")


def spec_folder() -> Path | None:
    """Where the specification is, None when it is not on this machine."""
    named = os.environ.get("FOLKMOOT_SPEC")
    folder = Path(named) if named else Path(__file__).parents[2].parent / "shared" / "spec"
    return folder if (folder / "data" / "api").is_dir() else None


@dataclass(frozen=True)
class Operation:
    """One method on one path. ``description`` is its OpenAPI object, every ``$ref`` replaced by what it names."""

    operation_id: str
    method: str
    path: str
    description: dict[str, Any]

    @property
    def needs_token(self) -> bool:
        """Whether a call without access token has to be refused."""
        security = self.description.get("security") or []
        return bool(security) and {} not in security

    @property
    def body(self) -> dict[str, Any] | None:
        """The schema of the JSON request body, None when it takes none."""
        content = self.description.get("requestBody", {}).get("content", {})
        return content.get("application/json", {}).get("schema")

    @property
    def body_is_optional(self) -> bool:
        """Whether an absent body is the same as ``{}``."""
        return not required(self.body or {})

    def parameters(self, place: str) -> dict[str, dict[str, Any]]:
        """Parameters in ``path``, ``query`` or ``header``, by name."""
        return {p["name"]: p for p in self.description.get("parameters", []) if p["in"] == place}

    def example_bodies(self) -> list[Any]:
        """Every example of a request body; one built from its properties' examples when there is none."""
        content = self.description.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None:
            return [None]
        given = [example["value"] for example in content.get("examples", {}).values() if "value" in example]
        given += [content["example"]] if "example" in content else []
        schema = content.get("schema", {})
        given += [schema["example"]] if "example" in schema else []
        given += schema.get("examples", [])
        return given or [example_of(schema)]

    def answer_schema(self, status: int) -> dict[str, Any] | None:
        """The schema of the JSON answer with this status, None when the specification gives none."""
        answer = self.description["responses"].get(str(status))
        if answer is None and 300 > status >= 200:
            answer = self.description["responses"].get("2XX")
        return (answer or {}).get("content", {}).get("application/json", {}).get("schema")


def required(schema: dict[str, Any]) -> list[str]:
    """Names of the fields that an object has to have."""
    names = list(schema.get("required", []))
    for part in schema.get("allOf", []):
        names += required(part)
    return names


def properties(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The fields that an object of this schema may have."""
    found = dict(schema.get("properties", {}))
    for part in schema.get("allOf", []):
        found |= properties(part)
    return found


def example_of(schema: dict[str, Any]) -> Any:
    """A value of this schema, from the examples in it; optional fields without example are left out."""
    if "example" in schema:
        return schema["example"]
    if schema.get("examples"):
        return schema["examples"][0]
    if schema.get("enum"):
        return schema["enum"][0]
    fields = properties(schema)
    if schema.get("type") == "object" or fields:
        known = {name: example_of(field) for name, field in fields.items()}
        needed = required(schema)
        return {name: value for name, value in known.items() if value is not None or name in needed}
    return None


@functools.cache
def _file(path: Path) -> Any:
    return yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def resolve(value: Any, path: Path, document: Any, seen: tuple[str, ...] = ()) -> Any:
    """`value` with every ``$ref`` replaced; one that leads back into itself becomes an empty schema."""
    if isinstance(value, list):
        return [resolve(item, path, document, seen) for item in value]
    if not isinstance(value, dict):
        return value
    reference = value.get("$ref")
    if not isinstance(reference, str):
        return {key: resolve(item, path, document, seen) for key, item in value.items()}
    name, _, pointer = reference.partition("#")
    target_path = (path.parent / name).resolve() if name else path
    here = f"{target_path}#{pointer}"
    if here in seen:
        return {}
    target_document = _file(target_path) if name else document
    target = target_document
    for step in pointer.split("/")[1:]:
        target = target[step.replace("~1", "/").replace("~0", "~")]
    resolved = resolve(target, target_path, target_document, (*seen, here))
    beside = {key: item for key, item in value.items() if key != "$ref"}
    return {**resolved, **resolve(beside, path, document, seen)} if beside else resolved


def operations(folder: Path, api: str = "client-server") -> Iterator[Operation]:
    """Every operation of an API."""
    for path in sorted((folder / "data" / "api" / api).glob("*.yaml")):
        document = _file(path)
        server = document["servers"][0]
        base = server.get("variables", {}).get("basePath", {}).get("default", "")
        for route, item in document["paths"].items():
            for method in METHODS:
                if method in item:
                    described = resolve(item[method], path.resolve(), document)
                    # One path ends in a space, to tell two operations on it apart.
                    whole = (base + route).rstrip()
                    yield Operation(described["operationId"], method.upper(), whole, described)
