"""Values that a field cannot have, by its schema."""

from typing import Any

WRONG: dict[str, Any] = {"string": "text", "number": 17, "object": {"a": 1}, "array": [[]]}


def wrong_values(schema: dict[str, Any]) -> list[Any]:
    """Values that a field of this schema cannot have; none for a schema that does not say its type."""
    kinds = schema.get("type")
    if not isinstance(kinds, str) or "oneOf" in schema or "anyOf" in schema:
        return []
    return [value for kind, value in WRONG.items() if kind != kind_of(kinds)] + (
        [True] if kinds in ("integer", "number") else []
    )


def kind_of(name: str) -> str:
    """JSON type names, integers being numbers."""
    return "number" if name == "integer" else name
