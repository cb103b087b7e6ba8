"""Make the objects that sync consists of and introduce them to each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IReactorTime

from homeserver.ephemeral.presence import Presence
from homeserver.ephemeral.presence_memory import PresenceMemory
from homeserver.ephemeral.receipts import Receipts
from homeserver.ephemeral.typing import Typing
from homeserver.feed import Feed
from homeserver.rooms.memberships import Memberships
from homeserver.rooms.sight import Sights
from homeserver.sync.ignored import IgnoredUsers
from homeserver.sync.longpoll import LongPoll
from homeserver.sync.quick import QuickReader
from homeserver.sync.reader import DeviceListSource, KeyCountSource, SyncReader
from homeserver.sync.room_ephemeral import RoomEphemeral
from homeserver.sync.room_sections import RoomSections, UnreadSource
from homeserver.sync.sent_members import SentMembers
from homeserver.sync.summary import Summaries
from homeserver.sync.user_sections import DefaultPushRules, UserSections
from storage.log.append import Entry, Kind, Log


@dataclass(slots=True)
class SyncServices:
    """What others need of sync: the endpoints, the WebSocket, the wiring of revoked sessions."""

    typing: Typing
    presence: Presence
    presence_memory: PresenceMemory
    receipts: Receipts
    ignored: IgnoredUsers
    reader: SyncReader
    longpoll: LongPoll

    def start(self) -> None:
        """Begin what runs by itself."""
        self.presence_memory.start()

    async def stop(self) -> None:
        """Forget timers and write down what is in memory, at the end of the server."""
        self.presence.stop()
        await self.presence_memory.stop()


def assemble_sync(
    *,
    log: Log,
    feed: Feed,
    memberships: Memberships,
    sights: Sights,
    key_counts: KeyCountSource,
    device_lists: DeviceListSource,
    unread: UnreadSource,
    push_rules: DefaultPushRules,
    clock: IReactorTime,
    now_ms: Callable[[], int],
    presence_enabled: bool = True,
) -> SyncServices:
    """Everything behind ``/sync``. ``memberships.follow`` has to follow the feed before this is called."""
    typing = Typing(clock, lambda room_id: _announce(log, Kind.TYPING, room_id=room_id))
    presence = Presence(clock, lambda user_id: _announce(log, Kind.PRESENCE, user_id=user_id), presence_enabled)
    memory = PresenceMemory(log, presence, clock, now_ms)
    ignored, sent_members = IgnoredUsers(), SentMembers()
    feed.follow(ignored.follow)
    feed.follow(lambda entries: _stop_typing(typing, entries))
    rooms = RoomSections(sights, RoomEphemeral(typing), Summaries(sights), unread, sent_members)
    reader = SyncReader(
        log,
        feed,
        memberships,
        rooms,
        UserSections(memberships, presence, push_rules),
        ignored,
        key_counts,
        device_lists,
        sent_members,
        clock,
    )
    quick = QuickReader(log, feed, memberships, rooms, ignored, key_counts)
    longpoll = LongPoll(log, feed, reader, quick, clock)
    return SyncServices(typing, presence, memory, Receipts(log, now_ms), ignored, reader, longpoll)


def _announce(log: Log, kind: Kind, room_id: str = "", user_id: str = "") -> None:
    """Give an ephemeral change its position, unless the log is closed: then nobody is left to be told."""
    if not log.closed and log.failed is None:
        log.append_ephemeral(kind, room_id=room_id, user_id=user_id)


def _stop_typing(typing: Typing, entries: Sequence[Entry]) -> None:
    """Who leaves types no more."""
    for entry in entries:
        note: Any = entry.note
        if entry.kind == Kind.EVENT and note is not None and note.target is not None and note.membership != "join":
            typing.stop(entry.room_id, note.target)
