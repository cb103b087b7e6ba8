"""Stream ids of device list updates (Server-Server API, "Device Management"): unique for each user, made from positions.

A change at a position of the log may need several updates, one for each device. They get the numbers up to
``stream_id(position)``, which stands for the whole change: it is what the next update names as its predecessor, and
the version of the list that `/user/devices` answers.
"""

SPREAD = 128
"""Numbers between two positions; a change is told with fewer updates than that."""


def stream_id(position: int) -> int:
    """The version of a user's device list whose last change has this position; 0 when it never changed."""
    return position * SPREAD


def stream_ids(position: int, count: int) -> range:
    """The numbers of ``count`` updates that tell of one change, in their order."""
    assert count < SPREAD, "updates of one change"
    last = stream_id(position)
    return range(last - count + 1, last + 1)


def unknown_before(position: int) -> int:
    """A number before the change that no update ever has: whoever is told of it has missed something."""
    return stream_id(position) - SPREAD + 1
