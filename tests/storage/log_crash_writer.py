"""The process that the crash test kills: appends batches and says on stdout which ones are durable.

A parent forks one writer after the other (before any reactor or environment exists, so that forking is safe),
waits for its end and starts the next.
"""

import os
import sys


def write(path: str) -> None:
    """Append for ever with several batches in flight."""
    from twisted.internet import reactor

    from storage.log.append import Kind
    from storage.log.catalog import PRESENCE
    from storage.log.env import open_log

    log = open_log(path, reactor, map_size=1 << 20)

    def say(text: str) -> None:
        os.write(1, text.encode() + b"\n")

    say(f"open {os.getpid()} {log.position}")
    count = 0

    def append() -> None:
        nonlocal count
        count += 1
        name = b"%d.%d" % (os.getpid(), count)
        batch = log.begin()
        positions = [batch.entry(Kind.RECEIPT, ref=name) for _ in range(3)]
        batch.put(PRESENCE, name + b"/a", name)
        batch.put(PRESENCE, name + b"/b", name)

        def durable(position: int) -> None:
            for each in positions:
                say(f"ack {each} {name.decode()}")
            append()

        log.append(batch).addCallback(durable)
        if count % 5 == 0:
            log.append_ephemeral(Kind.TYPING)

    log.on_release = lambda position, entries: say(f"given {position}")
    for _ in range(5):
        append()
    reactor.run(installSignalHandlers=False)  # type: ignore[attr-defined]


def main() -> None:
    """Fork writers until killed. The modules are loaded once, the reactor is made in the child."""
    path = sys.argv[1]
    sys.path[:] = sys.argv[2:]
    import storage.log.env

    assert storage and "twisted.internet.reactor" not in sys.modules
    while True:
        pid = os.fork()
        if not pid:
            write(path)
            os._exit(0)
        os.waitpid(pid, 0)
        os.write(1, b"dead\n")


main()
