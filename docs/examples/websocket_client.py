"""A small Matrix client on Folkmoot's WebSocket: prints what is said, sends what you type.

    python websocket_client.py ws://127.0.0.1:8008 ACCESS_TOKEN '!room:example.org'

Needs Twisted and autobahn. The protocol is described in docs/websocket.md.
"""

import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol, connectWS
from twisted.internet import reactor, stdio
from twisted.internet.defer import Deferred
from twisted.protocols.basic import LineReceiver

PATH = "/_matrix/client/unstable/io.folkmoot.websocket/stream"
COME_BACK = {1001, 1006, 4000, 4001, 4023}
"""Close codes after which the client connects again."""


class Refused(Exception):
    """The server answered a request with an error: its arguments are the status and the Matrix error object."""


class Connection(WebSocketClientProtocol):
    """One connection. What it learns goes to its client."""

    def onOpen(self) -> None:
        client = self.factory.client
        self.say(type="hello", access_token=client.token, **({"since": client.since} if client.since else {}))

    def say(self, **frame: Any) -> None:
        """Send one frame."""
        self.sendMessage(json.dumps(frame).encode())

    def onMessage(self, payload: bytes, is_binary: bool) -> None:
        frame = json.loads(payload)
        client = self.factory.client
        if frame["type"] == "welcome":
            if frame["since"] is None:
                client.start_afresh()
            client.ready(self)
        elif frame["type"] == "sync":
            client.take(frame["body"])
            # Only now is it ours: the server may forget to-device messages.
            self.say(type="ack", next_batch=frame["body"]["next_batch"])
        elif frame["type"] == "response":
            client.answered(frame)

    def onClose(self, was_clean: bool, code: int | None, reason: str | None) -> None:
        self.factory.client.lost(code or 1006, reason or "")


class Client:
    """A client that stays connected. ``on_sync`` is called with every body, which looks like an answer to /sync."""

    def __init__(self, server: str, token: str, on_sync: Callable[[dict[str, Any]], None]) -> None:
        self.token = token
        self.since: str | None = None
        self.on_sync = on_sync
        self.on_ready: Callable[[], None] = lambda: None
        self.on_end: Callable[[int, str], None] = lambda code, reason: None
        self.delay = 1.0
        self._url = server + PATH
        self._connection: Connection | None = None
        self._running: dict[int, Deferred[Any]] = {}
        self._last_id = 0
        self._stopped = False

    def connect(self) -> None:
        """Open the connection."""
        factory = WebSocketClientFactory(self._url, protocols=["m.json"])
        factory.protocol = Connection
        factory.client = self
        connectWS(factory)

    def stop(self) -> None:
        """Close the connection for good."""
        self._stopped = True
        if self._connection is not None:
            self._connection.sendClose(1000)

    def request(self, method: str, path: str, body: Any = None) -> "Deferred[Any]":
        """Any call of the Client-Server API; fires with the body of the answer, fails with Refused."""
        if self._connection is None:
            raise RuntimeError("not connected")
        self._last_id += 1
        self._running[self._last_id] = answer = Deferred()
        self._connection.say(type="request", id=self._last_id, method=method, path=path, body=body)
        return answer

    def send(self, room_id: str, text: str) -> "Deferred[Any]":
        """Send a text message. The transaction id keeps a repetition from being sent twice."""
        path = f"/_matrix/client/v3/rooms/{quote(room_id)}/send/m.room.message/m{self._last_id + 1}-{id(self)}"
        return self.request("PUT", path, {"msgtype": "m.text", "body": text})

    def start_afresh(self) -> None:
        """The next body is a first sync: forget what is known."""
        self.since = None

    def ready(self, connection: Connection) -> None:
        """The hello was accepted."""
        self._connection = connection
        self.delay = 1.0
        self.on_ready()

    def take(self, body: dict[str, Any]) -> None:
        """A body of a sync arrived."""
        self.on_sync(body)
        self.since = body["next_batch"]

    def answered(self, frame: dict[str, Any]) -> None:
        """A response arrived."""
        waiting = self._running.pop(frame["id"])
        if frame["status"] < 400:
            waiting.callback(frame["body"])
        else:
            waiting.errback(Refused(frame["status"], frame["body"]))

    def lost(self, code: int, reason: str) -> None:
        """The connection is gone: come back unless that is useless."""
        self._connection = None
        running, self._running = self._running, {}
        for waiting in running.values():
            waiting.errback(Refused(0, {"errcode": "M_UNKNOWN", "error": "connection lost"}))
        if code in COME_BACK and not self._stopped:
            reactor.callLater(self.delay, self.connect)  # type: ignore[attr-defined]
            self.delay = min(60.0, self.delay * 2)
        else:
            self.on_end(code, reason)


def messages(body: dict[str, Any], room_id: str) -> list[tuple[str, str]]:
    """(sender, text) of a room's new messages."""
    room = body.get("rooms", {}).get("join", {}).get(room_id, {})
    events = room.get("timeline", {}).get("events", [])
    return [(e["sender"], e["content"].get("body", "")) for e in events if e["type"] == "m.room.message"]


class Typed(LineReceiver):
    """Lines that are typed go to the room."""

    delimiter = b"\n"

    def __init__(self, send: Callable[[str], Any]) -> None:
        self._send = send

    def lineReceived(self, line: bytes) -> None:
        self._send(line.decode())


def main(server: str, token: str, room_id: str) -> None:
    """Talk in one room."""

    def show(body: dict[str, Any]) -> None:
        for sender, text in messages(body, room_id):
            print(f"{sender}: {text}", flush=True)

    def end(code: int, reason: str) -> None:
        print(f"closed: {code} {reason}")
        reactor.stop()  # type: ignore[attr-defined]

    client = Client(server, token, show)
    client.on_end = end
    client.connect()
    stdio.StandardIO(Typed(lambda text: client.send(room_id, text).addErrback(lambda why: print(why.value))))
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(*sys.argv[1:4])
