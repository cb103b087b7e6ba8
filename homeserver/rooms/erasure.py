"""Users who asked to be forgotten: what they said is shown only to those who were there.

Client-Server API, "POST /account/deactivate" (``erase``): whoever was not in the room when a message was sent gets it
without content. Other servers get it redacted, all of them: the specification asks it for those that come later, and what
is handed out again is forgotten by nobody. State is left alone: the room would lose its name.
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


def is_marked(view: View, user_id: str) -> bool:
    """Whether the user asked for it."""
    return view.get(FOLLOWERS, _ERASED + part(user_id)) is not None


def is_hidden(view: View, record: Any, membership: str) -> bool:
    """Whether an event is to be shown without content to a reader who had this membership when it was sent."""
    return membership != "join" and is_erased(view, record)


def is_erased(view: View, record: Any) -> bool:
    """Whether an event was said by somebody who asked to be forgotten; state and redactions stand."""
    if record.state_key is not None or record.type == "m.room.redaction":
        return False
    return is_marked(view, record.sender)


def without_content(event: bytes, record: Any) -> bytes:
    """The client's bytes of a stored event, made by ``record.client_json``, with an empty content."""
    return _CONTENT + b"{}" + event[len(_CONTENT) + len(record.content_json) :]
