"""What can go wrong with the log."""


class LogUnavailable(Exception):
    """An append was not made durable, or the log takes no more appends. Maps to HTTP 503.

    Nobody may act as if the appended data existed. ``status``, ``errcode`` and ``error`` are what the web
    layer puts into a Matrix error object.
    """

    status = 503
    errcode = "M_UNKNOWN"
    error = "The server cannot save data at the moment"


class LogFull(LogUnavailable):
    """The map reached its largest allowed size (or the address space ended): writes are refused.

    The log stays open: reads work, and writing is possible again when data was deleted or the limit raised.
    """

    error = "The server's storage is full"


class LogRefused(Exception):
    """The data directory must not be opened; the message tells the operator why and what to do."""
