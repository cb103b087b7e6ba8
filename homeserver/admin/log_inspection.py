"""What `folkmoot check-log` knows of events that storage does not: ids, hashes, relations."""

import orjson

from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.hashes import content_hash, encode_base64
from federation.rules.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.rooms.room import relation_of
from storage.log.check import Inspection
from storage.log.events import ABSENT, EventRecord

_HASHED = tuple(version for version in ROOM_VERSIONS.values() if version.hashed_event_ids)
_CHOSEN = ROOM_VERSIONS["1"]


def inspect(record: EventRecord) -> Inspection:
    """Whether an event's id follows from its bytes, and its hash from its content; and what it relates to.

    A record does not name its room's version, so the id has to follow by the rules of some version.
    """
    try:
        pdu = orjson.loads(record.pdu)
    except orjson.JSONDecodeError:
        return Inspection("its bytes are not JSON")
    version = _version_of(record)
    if version is None:
        return Inspection("its id does not follow from its content")
    event = Event.from_json(record.pdu, version, event_id=record.event_id)
    try:
        # What was redacted here or on the way keeps the hash of what it was.
        if not record.redacted and not record.rejected and event.content:
            given = pdu.get("hashes", {}).get("sha256")
            if given is not None and given != encode_base64(content_hash(pdu, version)):
                return Inspection("its content does not have the hash that it carries")
        return Inspection(None, None if record.redacted else relation_of(event))
    except (MatrixError, KeyError, TypeError) as problem:
        return Inspection(f"it cannot be read: {problem}")


def _version_of(record: EventRecord) -> RoomVersion | None:
    event_id = record.event_id
    if ":" in event_id:
        return _CHOSEN
    rootless = record.spans[1] == ABSENT  # only the create event of some versions carries no room id
    for version in _HASHED:
        if rootless and not version.room_id_is_create_hash:
            continue
        if Event.from_json(record.pdu, version).event_id == event_id:
            return version
    return None
