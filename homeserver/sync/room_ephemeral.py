"""The ephemeral events of a room in a sync: receipts and typing, built once for all readers."""

from collections import OrderedDict
from collections.abc import Iterable

import orjson

from homeserver.ephemeral.typing import Typing
from homeserver.sync.scope import Scope
from storage.log.receipts import Receipt, receipts_between

PRIVATE_TYPE = "m.read.private"
REMEMBERED = 256


class RoomEphemeral:
    """Builds ``m.receipt`` and ``m.typing`` events."""

    def __init__(self, typing: Typing) -> None:
        self._typing = typing
        self._shared: OrderedDict[tuple[int, int, int], bytes] = OrderedDict()

    def anyone_typing(self, room_id: str) -> bool:
        """Whether a reader who knows nothing has to be told."""
        return bool(self._typing.users(room_id))

    def typing(self, room_id: str) -> bytes:
        """The room's ``m.typing`` event."""
        return self._typing.event(room_id)

    def receipts(self, scope: Scope, room_id: str, since: int | None) -> list[bytes]:
        """At most one ``m.receipt`` event with the receipts set after ``since`` that the reader may know of.

        Private receipts are for their owner, and those of ignored users are left out.
        """
        found = list(receipts_between(scope.view, room_id, since or 0, scope.upto))
        own, shared = scope.user_id, [receipt for receipt in found if receipt.type != PRIVATE_TYPE]
        if scope.ignored:
            shared = [receipt for receipt in shared if receipt.user_id not in scope.ignored]
        private = [receipt for receipt in found if receipt.type == PRIVATE_TYPE and receipt.user_id == own]
        if private:
            return [receipt_event(shared + private)]
        if not shared:
            return []
        # Positions are unique in the whole log: the first, the last and the count name this list.
        key = (shared[0].position, shared[-1].position, len(shared))
        event = None if scope.ignored else self._shared.get(key)
        if event is None:
            event = receipt_event(shared)
        if not scope.ignored:
            self._shared[key] = event
            if len(self._shared) > REMEMBERED:
                self._shared.popitem(last=False)
        return [event]


def receipt_event(receipts: Iterable[Receipt]) -> bytes:
    """An ``m.receipt`` event (Client-Server API, module "Receipts")."""
    content: dict[str, dict[str, dict[str, dict[str, object]]]] = {}
    for receipt in receipts:
        users = content.setdefault(receipt.event_id, {}).setdefault(receipt.type, {})
        datum: dict[str, object] = {"ts": receipt.ts}
        if receipt.thread:
            datum["thread_id"] = receipt.thread
        # One event can show a user's receipt once; the unthreaded one stands for all.
        if receipt.user_id not in users or not receipt.thread:
            users[receipt.user_id] = datum
    return orjson.dumps({"type": "m.receipt", "content": content})
