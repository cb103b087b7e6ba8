"""Where log lines go and how they look: text for people or one JSON object each, on stderr."""

import sys
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


@implementer(ILogObserver)
class JsonLines:
    """Writes one JSON object a line: time (seconds), level, namespace, text and, for failures, the traceback."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out

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
        self._out.write(orjson.dumps(line, default=str).decode() + "\n")
        self._out.flush()


@implementer(ILogObserver)
class TextLines:
    """Writes lines for people."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out

    def __call__(self, event: dict[str, Any]) -> None:
        text = eventAsText(event, includeSystem=True)
        if text:
            self._out.write(text + "\n")
            self._out.flush()


def begin_logging(config: Config, out: IO[str] = sys.stderr) -> None:
    """Send this process's log to ``out`` with the configured level and format. Once for each process."""
    observer: ILogObserver = JsonLines(out) if config.log_format == "json" else TextLines(out)
    # Twisted's own "info" is chatter about factories and ports.
    twisted = LogLevelFilterPredicate(LogLevel.lookupByName(config.log_level))
    for namespace in ("twisted", "log_legacy"):
        twisted.setLogLevelForNamespace(namespace, LogLevel.warn)
    filtered = FilteringLogObserver(observer, [twisted])
    globalLogBeginner.beginLoggingTo([filtered], redirectStandardIO=False)
