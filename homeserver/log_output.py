"""Where log lines go and how they look: text for people or one JSON object each, on stderr.

A thread writes them, because a pipe that its reader neglects, or a slow disk, must not stop the server.
"""

import queue
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

import orjson
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
    formatEvent,
    globalLogBeginner,
)
from zope.interface import implementer

from config.schema import Config

MAX_WAITING = 10_000
"""Lines that wait for the reader; more are dropped and counted."""


class LineWriter:
    """Writes lines in a thread, in order, and never makes the caller wait."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def __call__(self, line: str) -> None:
        """Hand in a line, without its end."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def close(self, seconds: float = 1.0) -> None:
        """Wait for what was handed in, but not for a reader that is gone."""
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(seconds)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            try:
                if dropped:
                    self._out.write(f"({dropped} lines were lost: nobody read them)\n")
                self._out.write(line + "\n")
                self._out.flush()
            except (OSError, ValueError):
                continue  # a closed pipe: there is nowhere to complain


@implementer(ILogObserver)
class JsonLines:
    """Writes one JSON object a line: time (seconds), level, namespace, text and, for failures, the traceback."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def __call__(self, event: dict[str, Any]) -> None:
        level = event.get("log_level")
        line: dict[str, Any] = {
            "time": event.get("log_time"),
            "level": level.name if level is not None else "info",
            "namespace": event.get("log_namespace", ""),
            "text": formatEvent(event),
        }
        failure = event.get("log_failure")
        if failure is not None:
            line["traceback"] = failure.getTraceback()
        self._write(orjson.dumps(line, default=str).decode())


@implementer(ILogObserver)
class TextLines:
    """Writes lines for people."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def __call__(self, event: dict[str, Any]) -> None:
        text = eventAsText(event, includeSystem=True)
        if text:
            self._write(text)


def begin_logging(config: Config, out: IO[str] = sys.stderr) -> LineWriter:
    """Send this process's log to ``out`` with the configured level and format. Once for each process."""
    writer = LineWriter(out)
    observer: ILogObserver = JsonLines(writer) if config.log_format == "json" else TextLines(writer)
    # Twisted's own "info" is chatter about factories and ports.
    twisted = LogLevelFilterPredicate(LogLevel.lookupByName(config.log_level))
    for namespace in ("twisted", "log_legacy"):
        twisted.setLogLevelForNamespace(namespace, LogLevel.warn)
    filtered = FilteringLogObserver(observer, [twisted])
    globalLogBeginner.beginLoggingTo([filtered], redirectStandardIO=False)
    return writer
