"""Changes to JSON that stays JSON, so that fuzzing comes past the decoder: a value somewhere in it becomes another."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**53 - 1, 2**53, -(2**53), 2**63, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "\0", "\ud800", "💥" * 64, "@u:a.example", "@:a", "!r:a.example", "$" + "a" * 43, "a" * 255, "a" * 256, "ed25519:a",
    [], [[]], {}, {"": {}}, [None], ["a", 1], {"sha256": "A" * 43},
)  # fmt: skip


def mutate(data: bytes, chance: Random, head: int, otherwise: Callable[[bytes], bytes]) -> bytes:
    """An input like ``data``, whose first ``head`` bytes are no JSON. What is none otherwise is left to ``otherwise``."""
    if chance.random() < 0.3:
        return otherwise(data)
    try:
        value = json.loads(data[head:])
    except (ValueError, RecursionError):
        return otherwise(data)
    value = _changed(value, chance)
    first = bytes([chance.randrange(256)]) if head and chance.random() < 0.2 else data[:head]
    return first + json.dumps(value, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")


def _changed(value: Any, chance: Random) -> Any:
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        if chance.random() < 0.1:
            return {one: inner for one, inner in value.items() if one != key}
        if chance.random() < 0.05:
            return {**value, str(chance.choice(STRANGE)): value[key]}
        return {**value, key: _changed(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.85:
        place = chance.randrange(len(value))
        return [*value[:place], _changed(value[place], chance), *value[place + chance.randrange(2) :]]
    if isinstance(value, str) and value and chance.random() < 0.5:
        place = chance.randrange(len(value))
        return value[:place] + chance.choice(["", "\0", ":", "/", "é", "\ud800", "a" * 200, value]) + value[place + 1 :]
    return chance.choice(STRANGE)
