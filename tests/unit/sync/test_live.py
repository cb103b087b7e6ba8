"""The WebSocket edge over sockets that only pretend."""

import json
from typing import Any

import pytest

from federation.rules.errors import MatrixError
from homeserver.sync.filter_store import FilterStore
from homeserver.sync.live import SLOW_SECONDS, LiveSync
from homeserver.sync.live_frames import LiveFrames
from homeserver.sync.stream import Code
from homeserver.web.call import Answer, Call, Requester
from homeserver.web.socket import SharedFrame
from tests.fakes.world import World, bodies


class FakeSocket:
    """A socket that keeps what it is sent."""

    def __init__(self, headers: dict[str, str] | None = None) -> None:
        self.address = "192.0.2.1"
        self.congested = False
        self.data: Any = None
        self.frames: list[Any] = []
        self.shared: list[SharedFrame] = []
        self.code: int | None = None
        self.cap = True
        self._headers = headers or {}

    def header(self, name: str) -> str | None:
        return self._headers.get(name)

    def claim(self, user_id: str) -> bool:
        return self.cap

    def send(self, payload: bytes) -> None:
        self.frames.append(json.loads(payload))

    def send_shared(self, frame: SharedFrame) -> None:
        self.shared.append(frame)
        self.frames.append(json.loads(frame.payload))

    def close(self, code: int, reason: str) -> None:
        self.code = code

    def take(self) -> list[Any]:
        """The frames since the last look."""
        frames, self.frames = self.frames, []
        return frames

    def texts(self, room_id: str) -> list[str]:
        """The messages among the frames since the last look."""
        found: list[str] = []
        for frame in self.take():
            rooms = frame.get("body", {}).get("rooms", {}).get("join", {})
            found += bodies(rooms.get(room_id, {}).get("timeline", {}).get("events", []))
        return found


class Tokens:
    """``token_a`` is the token of ``@a:x``."""

    expiry: int | None = None

    def authenticate(self, token: str, address: str, user_agent: str) -> Requester:
        if not token.startswith("token_"):
            raise MatrixError(401, "M_UNKNOWN_TOKEN", "Unknown token")
        user = token.removeprefix("token_")
        return Requester(f"@{user}:x", f"DEVICE_{user}", token_id=token)

    def expires_ts(self, token: str) -> int | None:
        return self.expiry


class Echo:
    """Answers with what it was asked."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def body_limit(self, method: str, raw_path: str) -> int:
        return 100

    async def handle(self, call: Call) -> Answer:
        self.calls.append(call)
        return Answer(200, {"path": call.path, "body": call.body.decode(), "token": call.header("authorization")})


class Live:
    """A world with a WebSocket edge."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tokens = Tokens()
        self.calls = Echo()
        self.edge = self._edge()

    def _edge(self) -> LiveSync:
        world, sync = self.world, self.world.sync
        return LiveSync(
            log=world.log,
            feed=world.feed,
            memberships=world.memberships,
            ignored=sync.ignored,
            reader=sync.reader,
            filters=FilterStore(None),  # type: ignore[arg-type]
            presence=sync.presence,
            unread=world.unread,
            frames=LiveFrames(world.log, sync.typing, sync.presence, world.now_ms),
            authenticator=self.tokens,
            calls=self.calls,
            clock=world.clock,
            now_ms=world.now_ms,
        )

    def socket(self) -> FakeSocket:
        socket = FakeSocket()
        self.edge.connected(socket)  # type: ignore[arg-type]
        return socket

    def say(self, socket: FakeSocket, **frame: Any) -> list[Any]:
        self.edge.message(socket, json.dumps(frame).encode())  # type: ignore[arg-type]
        self.world.clock.pump([0] * 8)
        return socket.frames

    def hello(self, user: str, **fields: Any) -> FakeSocket:
        socket = self.socket()
        self.say(socket, type="hello", access_token=f"token_{user}", **fields)
        return socket

    def ready(self, user: str, **fields: Any) -> FakeSocket:
        """A connection that holds everything."""
        socket = self.hello(user, **fields)
        socket.take()
        socket.shared.clear()
        return socket


def quiet(*sockets: FakeSocket) -> None:
    """Forget what was sent so far, such as the presence of those who came."""
    for socket in sockets:
        socket.take()
        socket.shared.clear()


@pytest.fixture
def live() -> Live:
    return Live(World())


def test_hello_welcome_and_the_whole_account(live: Live) -> None:
    room = live.world.room("a", "b")
    welcome, first = live.hello("a").frames
    assert welcome == {"type": "welcome", "user_id": "@a:x", "device_id": "DEVICE_a", "since": None}
    assert first["type"] == "sync" and room in first["body"]["rooms"]["join"]


def test_everybody_shares_one_frame_but_the_sender(live: Live) -> None:
    room = live.world.room("a", *"bcd")
    sockets = {user: live.ready(user) for user in "abcd"}
    quiet(*sockets.values())
    live.world.say("a", room, "hi", "txn1")
    live.world.clock.advance(0)
    frames = {id(socket.shared[0]) for user, socket in sockets.items() if user != "a"}
    assert len(frames) == 1 and not sockets["a"].shared
    [own] = sockets["a"].take()
    assert own["body"]["rooms"]["join"][room]["timeline"]["events"][0]["unsigned"]["transaction_id"] == "txn1"
    [theirs] = sockets["b"].take()
    [event] = theirs["body"]["rooms"]["join"][room]["timeline"]["events"]
    assert event["content"]["body"] == "hi" and "transaction_id" not in event["unsigned"]
    assert theirs["body"]["next_batch"] == f"se1_{live.world.log.position}"


def test_typing_and_public_receipts_are_shared_private_ones_are_not(live: Live) -> None:
    room = live.world.room("a", "b", "c")
    event_id = live.world.say("a", room)
    b, c = live.ready("b"), live.ready("c")
    quiet(b, c)
    live.world.sync.typing.start(room, "@a:x")
    assert b.shared[0] is c.shared[0]
    live.world.read("b", room, event_id, "m.read.private")
    live.world.clock.advance(0)
    assert len(c.shared) == 1
    assert [frame["body"]["rooms"]["join"][room]["ephemeral"]["events"][0]["type"] for frame in b.take()] == [
        "m.typing", "m.receipt",
    ]  # fmt: skip
    live.world.read("c", room, event_id)
    live.world.clock.advance(0)
    assert len(b.shared) == 2


def test_presence_is_shared(live: Live) -> None:
    live.world.room("a", "b", "c", "d")
    a, b = live.ready("a"), live.ready("b")
    quiet(a, b)
    live.ready("c")
    assert a.shared[0] is b.shared[0]
    assert a.frames[0]["body"]["presence"]["events"][0]["sender"] == "@c:x"


def test_filters_and_ignored_users_get_their_own_view(live: Live) -> None:
    room = live.world.room("a", "b", "c")
    live.world.set_data("b", "m.ignored_user_list", {"ignored_users": {"@a:x": {}}})
    b = live.ready("b")
    c = live.ready("c", filter={"room": {"timeline": {"not_types": ["m.room.message"]}}})
    quiet(b, c)
    live.world.say("a", room)
    live.world.clock.advance(0)
    assert b.take() == [] and c.take() == []


def test_a_state_event_comes_as_a_delta(live: Live) -> None:
    room = live.world.room("a", "b")
    a = live.ready("a")
    live.world.join("c", room)
    live.world.clock.advance(0)
    [frame] = a.take()
    assert not a.shared and frame["body"]["rooms"]["join"][room]["summary"]["m.joined_member_count"] == 3
    assert frame["body"]["device_lists"]["changed"] == ["@c:x"]


def test_h05_a_slow_reader_costs_a_cursor_then_gets_one_delta(live: Live) -> None:
    room = live.world.room("a", "b")
    b = live.ready("b")
    b.congested = True
    for number in range(5):
        live.world.say("a", room, str(number))
    live.world.clock.advance(0)
    assert b.take() == []
    b.congested = False
    live.edge.drained(b)  # type: ignore[arg-type]
    [frame] = b.take()
    assert bodies(frame["body"]["rooms"]["join"][room]["timeline"]["events"]) == list("01234")
    live.world.say("a", room, "5")
    live.world.clock.advance(0)
    assert b.texts(room) == ["5"] and b.code is None


def test_h05_a_reader_that_never_reads_is_closed_and_resumes_without_loss(live: Live) -> None:
    room = live.world.room("a", "b")
    b = live.ready("b")
    token = f"se1_{live.world.log.position}"
    b.congested = True
    live.world.say("a", room, "missed")
    live.world.clock.advance(SLOW_SECONDS + 1)
    assert b.code == Code.TOO_SLOW
    live.edge.closed(b, 1006)  # type: ignore[arg-type]
    again = live.hello("b", since=token)
    assert again.frames[0]["since"] == token and again.texts(room) == ["missed"]


def test_acknowledged_is_where_the_device_resumes(live: Live) -> None:
    room = live.world.room("a", "b")
    b = live.ready("b")
    live.world.say("a", room, "one")
    live.world.clock.advance(0)
    [frame] = b.take()
    live.say(b, type="ack", next_batch=frame["body"]["next_batch"])
    live.world.say("a", room, "two")
    live.world.clock.advance(0)
    live.edge.closed(b, 1006)  # type: ignore[arg-type]
    again = live.hello("b")
    assert again.frames[0]["since"] == frame["body"]["next_batch"] + "_0"
    assert again.texts(room) == ["two"], "the second was never acknowledged"


def test_the_cursor_survives_a_restart(live: Live) -> None:
    room = live.world.room("a", "b")
    b = live.ready("b")
    live.world.say("a", room, "one")
    live.world.clock.advance(0)
    live.say(b, type="ack", next_batch=b.take()[-1]["body"]["next_batch"])
    live.world.say("a", room, "two")
    restarted = Live(live.world.restart())
    assert restarted.hello("b").texts(room) == ["two"]


def test_to_device_messages_stay_until_acknowledged(live: Live) -> None:
    live.world.room("a")
    a = live.ready("a")
    live.world.send_to_device("a", {"type": "t", "n": 1})
    live.world.clock.advance(0)
    [frame] = a.take()
    assert frame["body"]["to_device"]["events"] == [{"type": "t", "n": 1}]
    live.edge.closed(a, 1006)  # type: ignore[arg-type]
    again = live.hello("a")
    [sync] = [f for f in again.take() if f["type"] == "sync"]
    assert sync["body"]["to_device"]["events"] == [{"type": "t", "n": 1}], "it was not acknowledged"
    live.say(again, type="ack", next_batch=sync["body"]["next_batch"])
    live.edge.closed(again, 1006)  # type: ignore[arg-type]
    assert "to_device" not in json.dumps(live.hello("a").frames)


def test_a_backlog_of_to_device_messages_is_sent_in_order(live: Live) -> None:
    a = live.ready("a")
    live.world.send_to_device("a", *({"n": n} for n in range(250)))
    live.world.clock.pump([0] * 5)
    batches = [frame["body"]["to_device"]["events"] for frame in a.take()]
    assert [len(batch) for batch in batches] == [100, 100, 50]
    assert [m["n"] for batch in batches for m in batch] == list(range(250))


def test_an_acknowledgement_of_what_was_never_sent_closes(live: Live) -> None:
    a = live.ready("a")
    live.say(a, type="ack", next_batch="se1_99999")
    assert a.code == Code.BAD_FRAME


def test_calls_go_through_the_router(live: Live) -> None:
    a = live.ready("a")
    [answer] = live.say(a, type="request", id="7", method="PUT", path="/_matrix/client/v3/x?y=1", body={"k": [1]})
    assert answer == {
        "type": "response",
        "id": "7",
        "status": 200,
        "body": {"path": "/_matrix/client/v3/x", "body": '{"k":[1]}', "token": "Bearer token_a"},
    }
    assert live.calls.calls[0].query("y") == "1" and live.calls.calls[0].address == "192.0.2.1"


def test_h02_a_call_with_too_large_a_body_is_refused(live: Live) -> None:
    a = live.ready("a")
    path = "/_matrix/client/v3/x"
    [answer] = live.say(a, type="request", id=1, method="PUT", path=path, body={"k": "x" * 200})
    assert (answer["status"], answer["body"]["errcode"]) == (413, "M_TOO_LARGE")


@pytest.mark.parametrize(("token", "code"), [("bad", Code.UNKNOWN_TOKEN), ("", Code.UNKNOWN_TOKEN)])
def test_a_bad_token_closes(live: Live, token: str, code: Code) -> None:
    socket = live.socket()
    live.say(socket, type="hello", access_token=token)
    assert socket.code == code and socket.frames[0]["type"] == "error"


def test_h04_no_hello_in_ten_seconds_closes(live: Live) -> None:
    socket = live.socket()
    live.world.clock.advance(9.9)
    assert socket.code is None
    live.world.clock.advance(0.2)
    assert socket.code == Code.NO_HELLO


def test_h04_the_cap_on_connections(live: Live) -> None:
    socket = live.socket()
    socket.cap = False
    live.say(socket, type="hello", access_token="token_a")
    assert socket.code == Code.TOO_MANY_CONNECTIONS


def test_b02_logout_closes_at_once(live: Live) -> None:
    a, b = live.ready("a"), live.ready("b")
    live.edge.revoked("@a:x", "DEVICE_a", "token_a")
    assert a.code == Code.LOGGED_OUT and b.code is None


def test_b02_a_locked_account_is_cut_and_may_come_back(live: Live) -> None:
    a, b = live.ready("a"), live.ready("b")
    live.edge.locked("@a:x")
    assert a.code == Code.RESTART and b.code is None


def test_b02_a_logout_over_the_socket_is_answered_before_the_close(live: Live) -> None:
    room = live.world.room("a", "b")
    a = live.ready("a")
    answers: list[Any] = []

    async def handle(call: Call) -> Answer:
        live.edge.revoked("@a:x", "DEVICE_a", "token_a")
        live.world.sync.typing.start(room, "@b:x")
        answers.append(a.code)
        return Answer(200, {})

    live.calls.handle = handle  # type: ignore[method-assign]
    frames = live.say(a, type="request", id=1, method="POST", path="/_matrix/client/v3/logout")
    assert answers == [None] and frames == [{"type": "response", "id": 1, "status": 200, "body": {}}]
    assert a.code == Code.LOGGED_OUT


def test_b02_a_call_that_does_not_end_does_not_keep_the_connection(live: Live) -> None:
    from twisted.internet.defer import Deferred

    a = live.ready("a")
    live.calls.handle = lambda call: Deferred()  # type: ignore[method-assign, assignment, return-value]
    live.say(a, type="request", id=1, method="GET", path="/_matrix/client/v3/sync")
    live.edge.revoked("@a:x", "DEVICE_a", "token_a")
    live.world.clock.advance(0.9)
    assert a.code == Code.LOGGED_OUT


def test_b02_an_access_token_that_expires_closes(live: Live) -> None:
    live.tokens.expiry = live.world.now_ms() + 5_000
    a = live.ready("a")
    live.world.clock.advance(4.9)
    assert a.code is None
    live.world.clock.advance(0.2)
    assert a.code == Code.UNKNOWN_TOKEN


def test_a_device_has_one_connection(live: Live) -> None:
    first, second = live.ready("a"), live.ready("a")
    assert first.code == Code.REPLACED and second.code is None


def test_f02_who_is_removed_hears_of_it_and_of_nothing_after(live: Live) -> None:
    room = live.world.room("a", "b")
    b = live.ready("b")
    live.world.kick("a", room, "b")
    live.world.say("a", room, "hidden")
    live.world.clock.advance(0)
    [frame] = b.take()
    assert room in frame["body"]["rooms"]["leave"] and "hidden" not in json.dumps(frame)


def test_f01_who_joins_in_the_same_commit_does_not_see_the_message_before(live: Live) -> None:
    room = live.world.room("a", m_room_history_visibility={"history_visibility": "joined"})
    b = live.ready("b")
    from twisted.internet.defer import ensureDeferred

    world = live.world
    content = {"msgtype": "m.text", "body": "secret"}
    ensureDeferred(world.sending.message(world.who("a"), room, "m.room.message", content, None))
    ensureDeferred(world.membership.join(world.who("b"), room, {}, None))
    world.clock.pump([0] * 6)
    assert "secret" not in json.dumps(b.take())


def test_unread_counts_on_request_merged_over_a_second(live: Live) -> None:
    room = live.world.room("a", "b")
    b = live.ready("b", unread=True)
    for number in range(3):
        live.world.say("a", room, str(number))
    live.world.clock.advance(0)
    b.take()
    live.world.clock.advance(1)
    [frame] = b.take()
    assert frame["body"]["rooms"]["join"][room] == {
        "unread_notifications": {"notification_count": 3, "highlight_count": 0}
    }


def test_presence_lasts_as_long_as_the_connection(live: Live) -> None:
    a = live.ready("a")
    assert live.world.sync.presence.content("@a:x")["presence"] == "online"
    live.edge.closed(a, 1000)  # type: ignore[arg-type]
    live.world.clock.advance(31)
    assert live.world.sync.presence.content("@a:x")["presence"] == "offline"


def test_closed_connections_leave_nothing_behind(live: Live) -> None:
    a = live.ready("a")
    live.edge.closed(a, 1000)  # type: ignore[arg-type]
    live.world.clock.advance(100)
    assert live.edge.connections == 0 and live.world.clock.getDelayedCalls() == []
