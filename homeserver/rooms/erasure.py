"""Users who asked to be forgotten: what they said is shown only to those who were there.

Client-Server API, "POST /account/deactivate" (``erase``): whoever was not in the room when a message was sent gets it
without content. State is left alone: the room would lose its name.
"""

from typing import Any

from storage.log.append import Batch
from storage.log.catalog import FOLLOWERS
from storage.log.keys import part, u64
from storage.log.view import View

_ERASED = part("erased")
_CONTENT = b'{"content":'


def mark_erased(batch: Batch, user_id: str) -> None:
    """Remember that the user asked for it. Doing it again changes nothing."""
    batch.put(FOLLOWERS, _ERASED + part(user_id), u64(0))


def is_hidden(view: View, record: Any, membership: str) -> bool:
    """Whether an event is to be shown without content to a reader who had this membership when it was sent."""
    if membership == "join" or record.state_key is not None or record.type == "m.room.redaction":
        return False
    return view.get(FOLLOWERS, _ERASED + part(record.sender)) is not None


def without_content(event: bytes, record: Any) -> bytes:
    """The client's bytes of a stored event, made by ``record.client_json``, with an empty content."""
    return _CONTENT + b"{}" + event[len(_CONTENT) + len(record.content_json) :]
