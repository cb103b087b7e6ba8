"""Tokens that clients hand back to us: where a sync ended, where a timeline was cut.

Clients treat them as opaque (Client-Server API, "Syncing" and "Pagination"). Ours are:

``s<epoch>_<position>``
    a *sync token*: everything up to and including this position of the commit log has been seen.
``s<epoch>_<position>_<inbox>``
    the same while to-device messages are still waiting: those up to the position ``inbox`` have been seen.
``t<epoch>_<position>_<sequence>``
    a *timeline token*: a cut in one room's log between the events ``sequence - 1`` and ``sequence``. The position
    says how much of the log existed when it was handed out. History that is fetched later has
    sequence numbers of zero and below, so the number may be negative.

The first letter is the version: another layout takes another letter. The epoch changes when a data directory is
restored from a backup; positions of another epoch mean nothing here.
"""

import re
from typing import NamedTuple

from federation.rules.errors import MatrixError

_SYNC = re.compile(r"s([A-Za-z0-9-]{1,32})_([0-9]{1,19})(?:_([0-9]{1,19}))?", re.ASCII)
_TIMELINE = re.compile(r"t([A-Za-z0-9-]{1,32})_([0-9]{1,19})_(-?[0-9]{1,18})", re.ASCII)


class SyncToken(NamedTuple):
    """Everything up to ``position`` (inclusive) of the log with this ``epoch`` has been seen, but of the to-device
    messages only those up to ``inbox``."""

    epoch: str
    position: int
    inbox: int


class Since(NamedTuple):
    """Where a sync continues: after ``position``, and after ``inbox`` for to-device messages."""

    position: int
    inbox: int


class TimelineToken(NamedTuple):
    """A cut before the event numbered ``sequence`` of a room, handed out at ``position``."""

    epoch: str
    position: int
    sequence: int


def sync_token(epoch: str, position: int, inbox: int | None = None) -> str:
    """The text of a sync token; ``inbox`` when to-device messages after it are still waiting."""
    if inbox is None or inbox >= position:
        return f"s{epoch}_{position}"
    return f"s{epoch}_{position}_{inbox}"


def timeline_token(epoch: str, position: int, sequence: int) -> str:
    """The text of a timeline token: the cut just before the event numbered ``sequence``."""
    return f"t{epoch}_{position}_{sequence}"


def parse(text: str) -> SyncToken | TimelineToken:
    """Read a token of either kind, as ``/messages`` and ``/context`` accept both.

    Raises MatrixError 400 ``M_INVALID_PARAM`` when it is no token of ours.
    """
    if match := _SYNC.fullmatch(text):
        position = int(match[2])
        return SyncToken(match[1], position, position if match[3] is None else min(int(match[3]), position))
    if match := _TIMELINE.fullmatch(text):
        return TimelineToken(match[1], int(match[2]), int(match[3]))
    raise MatrixError(400, "M_INVALID_PARAM", "This is not a token of this server")


def since(text: str | None, epoch: str, newest: int) -> Since | None:
    """Where a sync continues, or None for a sync from the beginning.

    A token of another epoch, or one that names a position which this log has never reached, tells nothing
    about what the client holds: it is answered like a first sync, at once and in full, rather than by
    waiting for a position that may not come. Raises MatrixError 400 ``M_INVALID_PARAM`` for text that is no token.
    """
    if not text:
        return None
    token = parse(text)
    if token.epoch != epoch or token.position > newest:
        return None
    return Since(token.position, token.inbox if isinstance(token, SyncToken) else 0)
