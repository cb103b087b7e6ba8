"""Deactivated users leave their rooms: written down first, done bit by bit, crossed out last.

The outbox row of a deactivation becomes an *intent* in the log, which outlives a crash. Leaving a room that was left
already changes nothing, so that going through the rooms again after a crash ends in the same state. Their account data,
tags and push rules go last: nobody can read them any more.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from federation.rules.errors import MatrixError
from homeserver.rooms.append import append_if_allowed, asks_first
from homeserver.rooms.at_once import some_at_once
from homeserver.rooms.erasure import mark_erased
from homeserver.rooms.room import Draft, Rooms
from storage.log import rooms as room_log
from storage.log.account_data import delete_data
from storage.log.append import Batch
from storage.log.catalog import FOLLOWERS
from storage.log.keys import after_prefix, part, u64

ROOMS_AT_ONCE = 20
"""Rooms left in one batch; between batches the reactor does other things."""

PAUSE_AFTER_FAILURE = 5.0
_INTENTS = part("leaving")


class Departures:
    """Makes deactivated users leave. ``call_later`` is the reactor's."""

    def __init__(self, rooms: Rooms, call_later: Callable[..., Any]) -> None:
        self._rooms = rooms
        self._call_later = call_later
        self._running = False
        self._again = False
        self._stopped = False
        self._log = Logger()

    def bring(self, batch: Batch, payload: dict[str, Any]) -> None:
        """Turn an outbox row of kind ``account_deactivated`` into an intent. May come twice."""
        if payload.get("erase"):
            mark_erased(batch, payload["user_id"])
        batch.put(FOLLOWERS, _INTENTS + part(payload["user_id"]), u64(0) + payload["user_id"].encode())
        self._call_later(0, self.wake)

    def wake(self) -> None:
        """Work off the intents; also to be called at start-up."""
        if self._running:
            self._again = True
        elif not self._stopped:
            self._running, self._again = True, False
            Deferred.fromCoroutine(self._run()).addErrback(self._failed)

    def stop(self) -> None:
        """Begin nothing new; what is left is done at the next start."""
        self._stopped = True

    async def _run(self) -> None:
        await self._rooms.settled()
        with self._rooms.log.snapshot() as snapshot:
            rows = list(snapshot.range(FOLLOWERS, _INTENTS, after_prefix(_INTENTS), limit=100))
        for key, value in rows:
            user_id = value[8:].decode()
            await self._leave_all(user_id)
            if self._stopped:
                return
            batch = self._rooms.log.begin()
            with self._rooms.log.snapshot() as snapshot:
                delete_data(batch, snapshot, user_id)
            batch.delete(FOLLOWERS, key)
            await self._rooms.log.append(batch)
        self._running = False
        if self._again or len(rows) == 100:
            self.wake()

    async def _leave_all(self, user_id: str) -> None:
        with self._rooms.log.snapshot() as snapshot:
            memberships = room_log.membership_of(snapshot, user_id)
        rooms = [id_ for id_, record in memberships.items() if record.membership in ("join", "invite", "knock")]
        for start in range(0, len(rooms), ROOMS_AT_ONCE):
            if self._stopped:
                return
            batch = self._rooms.log.begin()
            some = rooms[start : start + ROOMS_AT_ONCE]
            policed = []
            try:
                for room_id in some:
                    draft = self._draft(room_id, user_id)
                    if draft is not None and asks_first(self._rooms, self._rooms.get(room_id), draft):
                        policed.append((room_id, draft))
                    elif draft is not None:
                        self._leave(batch, room_id, draft)
            except BaseException:
                for room_id in some:  # their pictures have moved on to what is not appended
                    self._rooms.drop(room_id)
                raise
            await self._rooms.log.append(batch)
            await some_at_once(policed, lambda one: append_if_allowed(self._rooms, *one))

    def _draft(self, room_id: str, user_id: str) -> Draft | None:
        room = self._rooms.find(room_id)
        if room is None or room.membership(user_id) not in ("join", "invite", "knock"):
            return None
        return Draft(user_id, "m.room.member", {"membership": "leave"}, state_key=user_id)

    def _leave(self, batch: Batch, room_id: str, draft: Draft) -> None:
        room = self._rooms.get(room_id)
        try:
            event = room.decide(draft)
        except MatrixError as refusal:
            self._log.warn("{user} cannot leave {room}: {why}", user=draft.sender, room=room_id, why=refusal.error)
            return
        room.stage(batch, event)

    def _failed(self, failure: Any) -> None:
        """The intents are still there: try again later."""
        self._running = False
        self._log.warn("letting deactivated users leave failed: {reason}", reason=failure.getErrorMessage())
        if not self._stopped:
            self._call_later(PAUSE_AFTER_FAILURE, self.wake)
