"""The catalogue: every table of the log with what its keys and values are.

One row here is one named LMDB database. Numbers are given once and never reused; new tables go at the end.
``str`` in a key means a *part* as packed by :func:`storage.log.keys.part`. Integers are big-endian.
"""

from typing import Final

FORMAT: Final = 1
"""Version of the layout on disk, stored in META; another version is refused at opening."""


class Table:
    """One table of the log. ``number`` indexes lists of per-table things on hot paths."""

    __slots__ = ("derived", "key", "name", "number", "value")

    def __init__(self, number: int, name: str, key: str, value: str, derived: bool = False) -> None:
        self.number = number
        self.name = name
        self.key = key
        self.value = value
        self.derived = derived

    def __repr__(self) -> str:
        return f"<Table {self.name}>"


META = Table(0, "meta", "ascii name", "format, epoch, lease (see append.py)")
LOG = Table(1, "log", "position u64", "entry (append.pack_entry)")
EVENTS = Table(2, "events", "room_nid u64, seq i64 biased", "event record (events.py)")
OUTLIERS = Table(3, "outliers", "str event_id", "event record without place in a room's order")
EVENT_IDS = Table(4, "event_ids", "str event_id", "room_nid u64, seq i64 biased (outlier: ones)", derived=True)
TIMESTAMPS = Table(5, "timestamps", "room_nid u64, ts i64 biased, seq i64 biased", "empty", derived=True)
RELATIONS = Table(6, "relations", "str parent, str rel_type, seq biased", "relations.py", derived=True)
THREADS = Table(7, "threads", "room_nid u64, seq i64 biased of the last reply", "root id", derived=True)
THREAD_ROOTS = Table(8, "thread_roots", "str root event_id", "thread summary (relations.py)", derived=True)
NODES = Table(9, "nodes", "room_nid u64, hash 20 bytes", "state map node (state_map.py)")
ROOMS = Table(10, "rooms", "str room_id", "RoomMeta (rooms.py)")
ROOM_NIDS = Table(11, "room_nids", "room_nid u64", "room_id utf-8", derived=True)
MEMBERSHIPS = Table(12, "memberships", "str user_id, str room_id", "MembershipRecord (rooms.py)")
TRANSACTIONS = Table(13, "transactions", "str user_id, str device_id, hash 16 bytes", "transactions.py")
RECEIPTS = Table(14, "receipts", "str room_id, str user_id, str type, str thread", "receipt (receipts.py)")
RECEIPT_POSITIONS = Table(15, "receipt_positions", "str room_id, position u64", "receipts key", derived=True)
ACCOUNT_DATA = Table(16, "account_data", "str user_id, str room_id or empty, str type", "account_data.py")
ACCOUNT_DATA_POSITIONS = Table(
    17, "account_data_positions", "str user_id, position u64", "key in account_data", derived=True
)
INBOX = Table(18, "inbox", "str user_id, str device_id, position u64", "to-device message, JSON bytes")
DEVICE_LISTS = Table(19, "device_lists", "str user_id", "position u64 of the last change")
DEVICE_LIST_POSITIONS = Table(20, "device_list_positions", "position u64", "user_id utf-8", derived=True)
PRESENCE = Table(21, "presence", "str user_id", "msgpack: user_id, when last active, status message")
DEVICE_CURSORS = Table(22, "device_cursors", "str user_id, str device_id", "position u64")
FOLLOWERS = Table(23, "followers", "str name", "position u64, rest: the follower's own bytes")
DESTINATIONS = Table(24, "destinations", "str server", "what the queue knows of it, the queue's own bytes")
DESTINATION_ROOMS = Table(25, "destination_rooms", "str server, str room_id", "position u64, room_id utf-8")
ALIASES = Table(26, "aliases", "str alias", "msgpack: room_id, creator")
ROOM_ALIASES = Table(27, "room_aliases", "str room_id, str alias", "alias utf-8")
PUBLISHED_ROOMS = Table(28, "published_rooms", "str room_id", "room_id utf-8")
REDACTIONS_AHEAD = Table(29, "redactions_ahead", "str event_id", "msgpack: ids of redactions that came before it")
OUTBOUND_MESSAGES = Table(30, "outbound_messages", "str server, position u64", "to-device EDU content, JSON bytes")
BLOCKED_ROOMS = Table(31, "blocked_rooms", "str room_id", "room_id utf-8, NUL, why nobody may enter, utf-8")
REMOTE_DEVICES = Table(32, "remote_devices", "str user_id", "msgpack row: devices and keys of another server's user")
BACK_OFFS = Table(33, "back_offs", "str server", "msgpack: server, since when, until when, interval, why it is left alone")

TABLES: Final[tuple[Table, ...]] = (
    META,
    LOG,
    EVENTS,
    OUTLIERS,
    EVENT_IDS,
    TIMESTAMPS,
    RELATIONS,
    THREADS,
    THREAD_ROOTS,
    NODES,
    ROOMS,
    ROOM_NIDS,
    MEMBERSHIPS,
    TRANSACTIONS,
    RECEIPTS,
    RECEIPT_POSITIONS,
    ACCOUNT_DATA,
    ACCOUNT_DATA_POSITIONS,
    INBOX,
    DEVICE_LISTS,
    DEVICE_LIST_POSITIONS,
    PRESENCE,
    DEVICE_CURSORS,
    FOLLOWERS,
    DESTINATIONS,
    DESTINATION_ROOMS,
    ALIASES,
    ROOM_ALIASES,
    PUBLISHED_ROOMS,
    REDACTIONS_AHEAD,
    OUTBOUND_MESSAGES,
    BLOCKED_ROOMS,
    REMOTE_DEVICES,
    BACK_OFFS,
)
