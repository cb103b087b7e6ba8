"""Random lives of a room against an oracle: what readers see, and that a chain of syncs misses and repeats nothing."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation.rules.errors import MatrixError
from homeserver.rooms.visibility import Standing, may_see
from tests.fakes.world import World, user_id

VISIBILITIES = ("world_readable", "shared", "invited", "joined")
READERS = "bc"
# Who acts is always the creator, except for joining and leaving.
STEPS = st.one_of(
    st.tuples(st.just("say"), st.just("")),
    st.tuples(st.sampled_from(["join", "leave", "kick", "ban", "unban", "invite"]), st.sampled_from(READERS)),
    st.tuples(st.just("visibility"), st.sampled_from(VISIBILITIES)),
    st.tuples(st.just("sync"), st.sampled_from(READERS)),
    st.tuples(st.just("topic"), st.just("")),
)


@dataclass
class Event:
    """What the oracle knows of one event: the two sides for each reader."""

    event_id: str
    type: str
    state_key: str | None
    before: dict[str, Standing] = field(default_factory=dict)
    after: dict[str, Standing] = field(default_factory=dict)


def read_room(world: World, room_id: str) -> list[Any]:
    from storage.log import events, rooms

    with world.log.snapshot() as view:
        meta = rooms.room_meta(view, room_id)
        assert meta is not None
        return list(events.room_slice(view, meta.nid, 1, meta.last_seq + 1))


def oracle(world: World, room_id: str) -> list[Event]:
    """Go through the room from its beginning, keeping state in a plain dictionary."""
    import json

    state: dict[tuple[str, str], dict[str, Any]] = {}

    def standing(reader: str) -> Standing:
        member = state.get(("m.room.member", user_id(reader)), {}).get("membership", "leave")
        return Standing(state.get(("m.room.history_visibility", ""), {}).get("history_visibility", "shared"), member)

    told = []
    for record in read_room(world, room_id):
        event = Event(record.event_id, record.type, record.state_key)
        event.before = {reader: standing(reader) for reader in READERS}
        if record.state_key is not None:
            state[record.type, record.state_key] = json.loads(record.content_json)
        event.after = {reader: standing(reader) for reader in READERS}
        told.append(event)
    return told


def visible(events: list[Event], reader: str, index: int) -> bool:
    """The table of the specification, said again in the plainest way."""
    event = events[index]
    later = any(other.after[reader].membership == "join" for other in events[index:])
    both = event.type == "m.room.history_visibility" or event.state_key == user_id(reader)
    before, after = event.before[reader], event.after[reader]
    return may_see(before, after if both else before, later)


def act(world: World, room_id: str, step: tuple[str, str]) -> None:
    what, who = step
    try:
        if what == "say":
            world.say("a", room_id)
        elif what == "topic":
            world.state("a", room_id, "m.room.topic", {"topic": str(world.log.position)})
        elif what == "visibility":
            world.state("a", room_id, "m.room.history_visibility", {"history_visibility": who})
        elif what in ("join", "leave"):
            getattr(world, what)(who, room_id)
        elif what == "sync":
            pass
        elif what == "unban":
            world.run(world.membership.unban(world.who("a"), room_id, user_id(who), None))
        else:
            getattr(world, what)("a", room_id, who)
    except MatrixError:
        pass  # the rules do not allow it now: nothing happened


class Client:
    """A client that syncs with a timeline long enough for every gap, and keeps what it is told."""

    def __init__(self, world: World, user: str) -> None:
        self.world, self.user = world, user
        self.since: str | None = None
        self.timeline: list[str] = []
        self.state: dict[tuple[str, str], str] = {}
        self.cut = False

    def sync(self, room_id: str) -> None:
        body = self.world.synced(self.user, self.since, filter={"room": {"timeline": {"limit": 100}}})
        self.since = body["next_batch"]
        for section in ("join", "leave"):
            room = body.get("rooms", {}).get(section, {}).get(room_id)
            if room is not None:
                self.take(room)

    def take(self, room: dict[str, Any]) -> None:
        # Long enough for everything: only a hidden change of state can cut it.
        self.cut = self.cut or room["timeline"]["limited"]
        for event in room["state"]["events"] + room["timeline"]["events"]:
            if "state_key" in event:
                self.state[event["type"], event["state_key"]] = event["event_id"]
        self.timeline += [event["event_id"] for event in room["timeline"]["events"]]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=4, max_size=25))
def test_f01_i14_syncs_together_give_the_visible_history_once_and_in_order(steps: list[tuple[str, str]]) -> None:
    world = World()
    room_id = world.room("a")
    clients = {reader: Client(world, reader) for reader in READERS}
    for step in steps:
        if step[0] == "sync":
            clients[step[1]].sync(room_id)
        else:
            act(world, room_id, step)
    for client in clients.values():
        client.sync(room_id)
    history = oracle(world, room_id)
    order = {event.event_id: index for index, event in enumerate(history)}
    for reader, client in clients.items():
        check_reader(world, room_id, history, order, reader, client)


def told_as_state(history: list[Event], reader: str, index: int) -> bool:
    """A state event that held while the reader was in the room is no secret: the state section tells it anyway."""
    event = history[index]
    if event.state_key is None:
        return False
    for later in history[index:]:
        if later is not event and (later.type, later.state_key) == (event.type, event.state_key):
            return later.after[reader].membership == "join" and later.before[reader].membership == "join"
        if later.after[reader].membership == "join":
            return True
    return False


def check_reader(
    world: World, room_id: str, history: list[Event], order: dict[str, int], reader: str, client: Client
) -> None:
    seen = client.timeline
    own = {i for i, e in enumerate(history) if e.state_key == user_id(reader) and e.type == "m.room.member"}
    for event_id in seen:
        index = order[event_id]
        shown = index in own or visible(history, reader, index) or told_as_state(history, reader, index)
        assert shown, "nothing hidden is told"
    now = history[-1].after[reader].membership
    if now == "join":
        # A client that came back is told the room anew: what counts is what came after its last coming.
        entered = max(i for i in own if history[i].before[reader].membership != "join")
        expected = [e.event_id for i, e in enumerate(history) if i >= entered and visible(history, reader, i)]
        since_then = seen[len(seen) - len(expected) :]
        assert since_then == expected, "everything since the join, once and in order"
        assert len(set(seen[-len(expected) :])) == len(expected)
        current = {(e.type, e.state_key): e.event_id for e in history if e.state_key is not None}
        assert {key: client.state.get(key) for key in current} == current, "the client's state is the room's"
    elif now in ("leave", "ban") and seen:
        left = max(i for i in own)
        assert max(order[event_id] for event_id in seen) <= left, "nothing from behind the departure"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=2, max_size=20), st.sampled_from(READERS))
def test_f01_a_first_sync_shows_exactly_the_visible_history(steps: list[tuple[str, str]], reader: str) -> None:
    world = World()
    room_id = world.room("a")
    for step in steps:
        act(world, room_id, step)
    act(world, room_id, ("join", reader))
    if not world.memberships.is_joined(user_id(reader), room_id):
        return
    client = Client(world, reader)
    client.sync(room_id)
    history = oracle(world, room_id)
    own = user_id(reader)
    current = {(event.type, event.state_key): event.event_id for event in history if event.state_key is not None}
    expected = [
        event.event_id
        for index, event in enumerate(history)
        if visible(history, reader, index)
        or (event.type == "m.room.member" and event.state_key == own)
        or current.get((event.type, event.state_key)) == event.event_id
    ]
    assert client.timeline == (expected[-len(client.timeline) :] if client.cut else expected)
