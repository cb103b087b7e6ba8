"""Redactions that arrived before what they redact, until it arrives.

Server-Server API, "Redactions"; room version 3, "Handling redactions".
"""

import msgspec

from storage.log.append import Batch
from storage.log.catalog import REDACTIONS_AHEAD
from storage.log.keys import part
from storage.log.view import View

MOST = 20
"""How many redactions of one event are remembered: a peer could send any number."""

_decode = msgspec.msgpack.Decoder(list[str]).decode


def redactions_of(view: View, event_id: str) -> list[str]:
    """Ids of the redactions that wait for an event, in their order of arrival."""
    data = view.get(REDACTIONS_AHEAD, part(event_id))
    return [] if data is None else _decode(data)


def put_redaction(batch: Batch, event_id: str, redaction_id: str) -> None:
    """Remember a redaction of an event that is not here; past the bound it is not."""
    known = redactions_of(batch, event_id)
    if redaction_id not in known and len(known) < MOST:
        batch.put(REDACTIONS_AHEAD, part(event_id), msgspec.msgpack.encode([*known, redaction_id]))


def drop_redactions(batch: Batch, event_id: str) -> None:
    """The event has arrived."""
    batch.delete(REDACTIONS_AHEAD, part(event_id))
