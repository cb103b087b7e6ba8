"""Rooms that are in use while the rest of their state is still arriving.

Server-Server API, send_join with ``omit_members``. A room comes in with its state but without most of its members; it can be
read and spoken in at once. Meanwhile members become known from the events that cite them (`place`), and events go to
the servers that the resident server named. Here the whole state is fetched, from one server after the other and for as long as
it takes, over restarts as well; then everything since the join is judged again (`replay`).
"""

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.task import deferLater
from twisted.logger import Logger

from federation.rules.auth import CREATE
from federation.rules.errors import MatrixError
from homeserver.rooms.current_state import CurrentState
from homeserver.rooms.gaps import Gaps
from homeserver.rooms.place import Place
from homeserver.rooms.receive import Receive
from homeserver.rooms.replay import Replay
from homeserver.rooms.room import Rooms
from homeserver.rooms.state_at import States
from storage.log import rooms as room_log
from storage.log.partial_joins import PartialJoin, drop_partial_join, given_up, partial_join, partial_joins

AT_ONCE = 2
"""Rooms whose states are fetched at the same time: each may be hundreds of megabytes in memory."""
MAX_CANDIDATES = 10
"""Servers that are asked in one round."""
PAUSE = 5.0
MAX_PAUSE = 600.0
WAIT_SECONDS = 60.0
"""How long somebody who needs all members waits."""

_report = Logger()


class PartialRooms:
    """Completes rooms that were joined without their members."""

    def __init__(
        self,
        rooms: Rooms,
        states: States,
        place: Place,
        current_state: CurrentState,
        gaps: Gaps,
        receive: Receive,
        clock: Any,
    ) -> None:
        self._rooms = rooms
        self._states = states
        self._place = place
        self._current_state = current_state
        self._gaps = gaps
        self._receive = receive
        self._clock = clock
        self._slots = DeferredSemaphore(AT_ONCE)
        self._running: set[str] = set()
        self._waiting: dict[str, list[Deferred[None]]] = {}
        self._stopped = False

    def resume(self) -> None:
        """Go on with the rooms that were not complete when the server stopped."""
        with self._rooms.log.snapshot() as view:
            rows = partial_joins(view)
        for join in rows:
            self.begin(join)

    def stop(self) -> None:
        """Begin nothing new; what is left goes on at the next start."""
        self._stopped = True

    def begin(self, join: PartialJoin) -> None:
        """Fetch the rest of a room."""
        if join.room_id not in self._running:
            self._running.add(join.room_id)
            Deferred.fromCoroutine(self._complete(join)).addErrback(self._failed, join)

    def servers_of(self, room_id: str) -> list[str]:
        """Servers that are in a room as far as its partial join told; none once its members are known."""
        join = partial_join(self._rooms.log, room_id)
        return [] if join is None else join.servers

    async def whole(self, room_id: str) -> None:
        """Wait until all members of a room are known. MatrixError 503 when that takes too long."""
        room = self._rooms.find(room_id)
        if room is None or not room.meta.partial_state:
            return
        done: Deferred[None] = Deferred()
        self._waiting.setdefault(room_id, []).append(done)
        too_late = self._clock.callLater(WAIT_SECONDS, done.cancel)
        try:
            await done
        except Exception:
            raise MatrixError(503, "M_UNKNOWN", "The members of this room are still being fetched") from None
        finally:
            if too_late.active():
                too_late.cancel()

    async def _complete(self, join: PartialJoin) -> None:
        started = self._clock.seconds()
        pause = PAUSE
        while not self._stopped and partial_join(self._rooms.log, join.room_id) is not None:
            if self._is_left(join.room_id):
                await self._rooms.settled()  # those who hear of the leave are found by this join
                if self._is_left(join.room_id):
                    await self._give_up(join.room_id)
                    break
            await self._slots.acquire()
            try:
                replay = await self._attempt(join)
            finally:
                self._slots.release()
            room = self._rooms.find(join.room_id)
            if replay is not None and room is not None:
                _report.info(
                    "{room} is complete: {members} members after {seconds:.1f} s; of {count} events since the join {refused} "
                    "do not stand",
                    room=join.room_id,
                    members=room.meta.joined,
                    seconds=self._clock.seconds() - started,
                    count=replay.count,
                    refused=replay.refused,
                )
                break
            await deferLater(self._clock, pause)
            pause = min(2 * pause, MAX_PAUSE)
        self._over(join.room_id)

    def _is_left(self, room_id: str) -> bool:
        return not any(True for _ in self._rooms.get(room_id).local_joined())

    async def _attempt(self, join: PartialJoin) -> Replay | None:
        """Ask one server after the other; None when none of them had the state."""
        for server in join.servers[:MAX_CANDIDATES]:
            if self._stopped:
                return None
            try:
                root = await self._gaps.state_before(server, join.room_id, join.event_id)
                room = self._rooms.get(join.room_id)
                if room.state_map.get(root, *CREATE) != room.state_map.get(room.meta.state_root, *CREATE):
                    raise MatrixError(502, "M_UNKNOWN", "what it sent is not the state of this room")
            except MatrixError as problem:
                _report.info(
                    "{server} did not send the rest of {room}: {why}", server=server, room=join.room_id, why=problem.error
                )
                continue
            replay = Replay(
                self._rooms, self._states, self._place, self._current_state, join.room_id, join.event_id, root
            )
            try:
                await self._receive.in_turn(join.room_id, partial(self._judge_again, replay))
            except MatrixError:
                if self._rooms.find(join.room_id) is not None:
                    raise
                return None  # it was deleted meanwhile
            await self._rooms.settled()
            return replay
        return None

    async def _judge_again(self, replay: Replay) -> None:
        await replay.begin()
        while not replay.step():
            await deferLater(self._clock, 0)

    async def _give_up(self, room_id: str) -> None:
        """Everybody of this server has left: what is known of the room is all that there will be."""
        batch = self._rooms.log.begin()
        room = self._rooms.get(room_id)
        room.meta.unfinished = given_up(self._rooms.log, room.meta)
        room.meta.partial_state = False
        room_log.put_room(batch, room.meta)
        drop_partial_join(batch, room_id)
        await self._rooms.log.append(batch)

    def _over(self, room_id: str) -> None:
        self._running.discard(room_id)
        for done in self._waiting.pop(room_id, []):
            if not done.called:
                done.callback(None)

    def _failed(self, failure: Any, join: PartialJoin) -> None:
        _report.failure("{room} could not be completed", failure, room=join.room_id)
        self._running.discard(join.room_id)
        if not self._stopped:
            self._clock.callLater(MAX_PAUSE, self.begin, join)
