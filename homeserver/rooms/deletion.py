"""Deleting a room from this server: local members leave, then everything of it is taken out of the log.

Written down first, done bit by bit, crossed out last: a deletion that a restart interrupts goes on where it was. Until
it is done nobody can enter the room; after that it can be entered like any room that this server does not know, unless
it is blocked.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.room_versions import room_version
from homeserver.rooms.append import append_if_allowed, asks_first, stage_if_allowed
from homeserver.rooms.room import Draft, Room, Rooms, relation_of
from storage.log import removal as log_removal
from storage.log.events import EventRecord
from storage.log.relations import Relation
from storage.log.removal import Removal

MEMBERS_AT_ONCE = 20
"""Users who leave in one batch."""
PAUSE = 0.005
"""Seconds between two steps, so that the deletion leaves the reactor to the people."""
FAREWELL = 30.0
"""For how many seconds other servers are given the chance to hear that our users have left."""
LOOK_AGAIN = 0.5
PAUSE_AFTER_FAILURE = 5.0
REMEMBERED = 100
"""Finished deletions that can still be asked about, until a restart."""

FINISHED = "done"


class Deletion:
    """Deletes rooms, one after the other."""

    def __init__(self, rooms: Rooms, clock: Any) -> None:
        self._rooms = rooms
        self._clock = clock
        self.forget: list[Callable[[str], None]] = [rooms.forget_room]
        """Whoever remembers things of rooms; told when a room is gone."""
        self.owes: Callable[[int], bool] = lambda room_nid: False
        """Whether other servers are still to be sent events of the room with this number."""
        self._finished: OrderedDict[str, Removal] = OrderedDict()
        self._running = False
        self._stopped = False
        self._report = Logger()

    # -- for operators -----------------------------------------------------------------------------------------------

    async def delete(self, room_id: str, by: str = "", block: str | None = None) -> Removal:
        """Begin to delete a room; durable when it returns. ``block`` is the reason to keep people out of it from now on.

        A room that is being deleted is not begun again. MatrixError 404 for a room that this server does not know.
        """
        known = log_removal.removal_of(self._rooms.log, room_id)
        if known is None and self._rooms.find(room_id) is None:
            raise MatrixError(404, "M_NOT_FOUND", "This server does not know that room")
        wanted = known or Removal(
            room_id=room_id, local=f":{self._rooms.server_name}", started=self._rooms.now_ms(), by=by
        )
        batch = self._rooms.log.begin()
        log_removal.put_removal(batch, wanted)
        if block is not None:
            log_removal.block(batch, room_id, block)
        self._finished.pop(room_id, None)
        await self._rooms.log.append(batch)
        self.wake()
        return wanted

    async def block(self, room_id: str, reason: str) -> None:
        """Keep people of this server out of a room, known or not."""
        batch = self._rooms.log.begin()
        log_removal.block(batch, room_id, reason)
        await self._rooms.log.append(batch)

    async def unblock(self, room_id: str) -> None:
        """Let them in again. MatrixError 404 if the room is not blocked."""
        if not log_removal.is_blocked(self._rooms.log, room_id):
            raise MatrixError(404, "M_NOT_FOUND", "That room is not blocked")
        batch = self._rooms.log.begin()
        log_removal.unblock(batch, room_id)
        await self._rooms.log.append(batch)

    def blocked(self) -> dict[str, str]:
        """Blocked rooms with the reasons."""
        with self._rooms.log.snapshot() as snapshot:
            return log_removal.blocked_rooms(snapshot)

    def progress(self, room_id: str) -> Removal | None:
        """How far the deletion of a room is (phase ``done``: finished since the last restart); None for no deletion."""
        return log_removal.removal_of(self._rooms.log, room_id) or self._finished.get(room_id)

    # -- life --------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Work off what is written down; also to be called at start-up."""
        if not self._running and not self._stopped:
            self._running = True
            Deferred.fromCoroutine(self._run()).addErrback(self._failed)

    def stop(self) -> None:
        """Begin nothing new; what is left is done at the next start."""
        self._stopped = True

    async def _run(self) -> None:
        while not self._stopped:
            await self._rooms.settled()
            with self._rooms.log.snapshot() as snapshot:
                jobs = log_removal.removals(snapshot)
            if not jobs:
                break
            await self._delete(jobs[0])
        self._running = False

    async def _delete(self, job: Removal) -> None:
        if job.phase == "leaving":
            await self._leave(job)
        going_on = True
        while going_on and not self._stopped:
            batch = self._rooms.log.begin()
            with self._rooms.log.snapshot() as snapshot:
                going_on = log_removal.step(batch, snapshot, job, _relation)
            await self._rooms.log.append(batch)
            await deferLater(self._clock, PAUSE)
        if not going_on:
            job.phase = FINISHED
            self._finished[job.room_id] = job
            if len(self._finished) > REMEMBERED:
                self._finished.popitem(last=False)
            self._report.info("{room} is deleted: {rows} rows", room=job.room_id, rows=job.removed)

    async def _leave(self, job: Removal) -> None:
        """Local members leave, other servers hear of it; then the room's row goes."""
        waited = 0.0
        members: list[str] = []
        stuck: set[str] = set()  # a room whose state is broken lets nobody leave: they are taken out with its rows
        while not self._stopped:
            room = self._rooms.find(job.room_id)
            if room is not None:
                members = members or [one for one in _to_leave(room, job.local) if one not in stuck]
                if members:
                    stuck |= await self._leave_some(job, room, members[:MEMBERS_AT_ONCE])
                    del members[:MEMBERS_AT_ONCE]
                    continue
            if room is not None and waited < FAREWELL and self.owes(room.meta.nid):
                await deferLater(self._clock, LOOK_AGAIN)
                waited += LOOK_AGAIN
                continue
            # In this turn nobody of ours is in the room, and no event can come between.
            batch = self._rooms.log.begin()
            with self._rooms.log.snapshot() as snapshot:
                log_removal.begin(batch, snapshot, job, None if room is None else room.meta)
            done = self._rooms.log.append(batch)
            self._forget(job.room_id)
            await done
            self._forget(job.room_id)  # what readers have taken from the log until just now
            return

    async def _leave_some(self, job: Removal, room: Room, members: Iterable[str]) -> set[str]:
        """Those of the members who may not leave."""
        refused = set()
        policed = []
        batch = self._rooms.log.begin()
        try:
            for user_id in members:
                draft = Draft(user_id, "m.room.member", {"membership": "leave"}, state_key=user_id)
                if room.membership(user_id) == "leave":
                    continue
                if asks_first(self._rooms, room, draft):
                    policed.append(draft)
                elif stage_if_allowed(batch, room, draft):
                    job.left += 1
                else:
                    refused.add(user_id)
            log_removal.put_removal(batch, job)
        except BaseException:
            self._rooms.drop(room.room_id)
            raise
        await self._rooms.log.append(batch)
        for draft in policed:
            if await append_if_allowed(self._rooms, room.room_id, draft) is None:
                refused.add(draft.sender)
        return refused

    def _forget(self, room_id: str) -> None:
        for forget in self.forget:
            forget(room_id)

    def _failed(self, failure: Any) -> None:
        """What is written down is still there: try again later."""
        self._running = False
        self._report.warn("deleting a room failed: {reason}", reason=failure.getErrorMessage())
        if not self._stopped:
            self._clock.callLater(PAUSE_AFTER_FAILURE, self.wake)


def _to_leave(room: Room, local: str) -> Iterable[str]:
    """Local users who are in the room, or on the way into it."""
    for user_id, _ in room.members():
        if user_id.endswith(local) and room.membership(user_id) in ("join", "invite", "knock"):
            yield user_id


def _relation(record: EventRecord, version: str) -> Relation | None:
    if record.redacted or b"m.relates_to" not in record.content_json:
        return None
    return relation_of(Event.from_json(record.pdu, room_version(version), event_id=record.event_id))


def as_facts(removal: Removal) -> dict[str, Any]:
    """The progress of a deletion, for operators. Times in milliseconds."""
    return {
        "room_id": removal.room_id,
        "phase": removal.phase,
        "members_left": removal.left,
        "rows_removed": removal.removed,
        "started": removal.started,
        "by": removal.by,
    }

