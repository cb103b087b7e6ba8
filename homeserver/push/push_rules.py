"""The push rules of local users: stored as account data `m.push_rules`, ready for use in memory."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import orjson

from homeserver.push.default_rules import ME, default_rules
from homeserver.push.rules import CompiledRules, compile_rules, compiled_default_rules
from homeserver.push.ruleset import Ruleset, merged
from storage.log.account_data import datum, put_datum
from storage.log.append import Log
from storage.log.view import View

TYPE = "m.push_rules"


class PushRules:
    """Rules by user. Compiled rules of at most ``limit`` users who changed theirs are kept."""

    def __init__(self, log: Log, limit: int = 10_000) -> None:
        self._log = log
        self._limit = limit
        self._compiled: OrderedDict[str, tuple[bytes, CompiledRules]] = OrderedDict()
        self._default_parts = orjson.dumps({"global": default_rules(ME)}).split(orjson.dumps(ME)[1:-1])

    def ruleset(self, user_id: str) -> Ruleset:
        """The `global` rules, newest submitted."""
        return self._merged(_stored(self._log, user_id), user_id)

    async def change(self, user_id: str, edit: Callable[[Ruleset], Ruleset]) -> None:
        """Apply ``edit`` to the rules and wait until they are durable. Nothing is written when it changes nothing."""
        old = self.ruleset(user_id)
        new = edit(old)
        if new == old:
            await self._log.append(self._log.begin())
            return
        batch = self._log.begin()
        put_datum(batch, user_id, "", TYPE, orjson.dumps({"global": new}))
        await self._log.append(batch)

    def default_content(self, user_id: str) -> bytes:
        """Content of `m.push_rules` for a user who has never changed a rule, as JSON bytes."""
        return orjson.dumps(user_id)[1:-1].join(self._default_parts)

    def content(self, view: View, user_id: str) -> bytes:
        """Content of `m.push_rules`, predefined rules included, as JSON bytes."""
        stored = _stored(view, user_id)
        return self.default_content(user_id) if stored is None else stored

    def compiled(self, view: View, user_id: str) -> CompiledRules:
        """The rules ready for :func:`homeserver.push.rules.evaluate`."""
        stored = _stored(view, user_id)
        if stored is None:
            return compiled_default_rules()
        known = self._compiled.get(user_id)
        if known is not None and known[0] == stored:
            self._compiled.move_to_end(user_id)
            return known[1]
        compiled = compile_rules(self._merged(stored, user_id))
        self._compiled[user_id] = (stored, compiled)
        if len(self._compiled) > self._limit:
            self._compiled.popitem(last=False)
        return compiled

    def _merged(self, stored: bytes | None, user_id: str) -> Ruleset:
        content: Any = None if stored is None else orjson.loads(stored)
        return merged(None if content is None else content["global"], user_id)


def _stored(view: View, user_id: str) -> bytes | None:
    found = datum(view, user_id, "", TYPE)
    return None if found is None else found.content
