"""homeserver.log_output: lines in order, and a reader that does not read stops nobody."""

import fcntl
import io
import os

import orjson

from homeserver.log_output import JsonLines, LineWriter, TextLines


def test_lines_come_in_order_and_whole() -> None:
    out = io.StringIO()
    writer = LineWriter(out)
    for number in range(100):
        writer(str(number))
    writer.close(10)
    assert out.getvalue().splitlines() == [str(number) for number in range(100)]


def test_a_pipe_that_nobody_reads_stops_nobody() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with open(writing, "w") as out:
        writer = LineWriter(out)
        for _ in range(10_300):
            writer("x" * 100)
        data = b""
        while data.count(b"\n") < 10_000:
            data += os.read(reading, 65536)
        writer("the last")
        while not data.endswith(b"the last\n"):
            data += os.read(reading, 65536)
        writer.close(10)
    os.close(reading)
    assert b" lines were lost: nobody read them)\n" in data


class ClosedPipe(io.StringIO):
    """Whoever read this is gone for the first line."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = True

    def write(self, text: str) -> int:
        if self.broken:
            self.broken = False
            raise BrokenPipeError
        return super().write(text)


def test_a_pipe_without_a_reader_is_no_error() -> None:
    out = ClosedPipe()
    writer = LineWriter(out)
    writer("lost")
    writer("kept")
    writer.close(10)
    assert out.getvalue() == "kept\n"


def test_what_a_line_says() -> None:
    lines: list[str] = []
    event = {"log_format": "{what} happened", "what": "it", "log_time": 1.5, "log_namespace": "here"}
    JsonLines(lines.append)(event)
    TextLines(lines.append)(event)
    assert orjson.loads(lines[0]) == {"time": 1.5, "level": "info", "namespace": "here", "text": "it happened"}
    assert lines[1].endswith("it happened")
