"""What goes wrong with tables, in words that an endpoint can pass on: each names its HTTP status and ``errcode``."""

from typing import Any


class TableError(Exception):
    """A failure with a Matrix error body; this layer lies below ``federation`` and cannot use MatrixError."""

    status = 500
    errcode = "M_UNKNOWN"

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error
        self.extra: dict[str, Any] = {}

    def body(self) -> dict[str, Any]:
        """The JSON object that goes to the caller."""
        return {"errcode": self.errcode, "error": self.error, **self.extra}


class DatabaseUnavailable(TableError):
    """The database is away, or went away so that the outcome is not known. Asking again later is right."""

    status = 503

    def __init__(self, error: str = "The database is not available at the moment; try again") -> None:
        super().__init__(error)


class UnstorableText(TableError):
    """A string with a NUL character or a lone surrogate, which PostgreSQL cannot hold. Nothing was stored."""

    status = 400
    errcode = "M_BAD_JSON"

    def __init__(self, error: str = "Text must not contain NUL characters or lone surrogates") -> None:
        super().__init__(error)


class DatabaseRefused(Exception):
    """The database is not fit for use (settings, version, schema). The message tells the operator what to do."""
