"""The one error that travels to a caller as a Matrix error object."""

from typing import Any


class MatrixError(Exception):
    """An answer that refuses: HTTP status, ``errcode``, a sentence for people, further keys.

    Specification: Client-Server API, "Standard error response".
    """

    def __init__(self, status: int, errcode: str, error: str, **extra: Any) -> None:
        super().__init__(f"{status} {errcode}: {error}")
        self.status = status
        self.errcode = errcode
        self.error = error
        self.extra = extra

    def body(self) -> dict[str, Any]:
        """The JSON object that goes to the caller."""
        return {"errcode": self.errcode, "error": self.error, **self.extra}
