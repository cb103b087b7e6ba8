"""What the log says about a handler that failed: where and why, without a byte of what the caller sent."""

import traceback
from typing import Any

import orjson

from homeserver.web.call import Call

MAX_PLANTED = 1000


def describe_fault(call: Call, error: BaseException | None) -> str:
    """A traceback without values. Exception messages may quote values: what the call carried is blanked in
    them.
    """
    lines = [f"{call.method} {blank(call.raw_path, secrets_of(call))} failed"]
    secrets = secrets_of(call)
    link = error
    for _ in range(5):
        if link is None:
            break
        lines.append(f"{type(link).__module__}.{type(link).__qualname__}: {blank(str(link), secrets)}")
        lines.extend(
            f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(link.__traceback__)
        )
        link = link.__cause__ or link.__context__
    return "\n".join(lines)


def secrets_of(call: Call) -> list[str]:
    """Everything in a call that must not be logged: the token and each string of body and query; longest
    first.
    """
    found = {call.headers.get("authorization", "").partition(" ")[2], call.token or ""}
    found.update(piece.partition("=")[2] for piece in call.raw_query.split("&", MAX_PLANTED))
    try:
        waiting: list[Any] = [orjson.loads(call.body)] if call.body else []
    except ValueError:
        waiting = [call.body.decode("utf-8", "replace")]
    while waiting and len(found) < MAX_PLANTED:
        value = waiting.pop()
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return sorted((text for text in found if len(text) >= 3), key=len, reverse=True)


def blank(message: str, secrets: list[str]) -> str:
    """The message, shortened, with each secret replaced by an ellipsis."""
    message = message[:2000]
    for secret in secrets:
        message = message.replace(secret, "…")
    return message
