"""Deleting a room: nothing of it stays, other rooms do, a restart does not stop it, and it can be entered again."""

import pytest

from federation.rules.errors import MatrixError
from federation.wire.errors import RequestRefused
from homeserver.admin.log_inspection import inspect
from homeserver.rooms.deletion import FINISHED, Deletion
from homeserver.rooms.overview import Overviews
from storage.log import removal
from storage.log.catalog import FOLLOWERS, TABLES
from storage.log.check import check_log
from tests.fakes.town import Town, Twin
from tests.fakes.world import World, user_id

END = b"\xff" * 511


def rows(world: "World | Twin") -> dict[str, int]:
    with world.log.snapshot() as snapshot:
        return {table.name: sum(1 for _ in snapshot.range(table, b"\0", END)) for table in TABLES}


def mentions(world: "World | Twin", room_id: str) -> dict[str, int]:
    """Rows in which a room's id stands."""
    found: dict[str, int] = {}
    with world.log.snapshot() as snapshot:
        for table in TABLES:
            for key, value in snapshot.range(table, b"\0", END):
                if room_id.encode() in key + value:
                    found[table.name] = found.get(table.name, 0) + 1
    return found


def deleting(world: World) -> Deletion:
    deletion = Deletion(world.rooms, world.clock)
    deletion.forget += [world.memberships.forget_room]
    return deletion


def lively(world: World, creator: str) -> str:
    """A room with everything that a room can have."""
    room = world.room(creator, "b")
    root = world.say(creator, room, "root")
    world.say("b", room, "reply", **{"m.relates_to": {"rel_type": "m.thread", "event_id": root}})
    world.say("b", room, "other", **{"m.relates_to": {"rel_type": "m.reference", "event_id": root}})
    world.redact("b", room, world.say("b", room, "wrong"))
    for number in range(30):
        world.state(creator, room, "x.y", {"n": number}, f"key{number}")
    world.read("b", room, root)
    world.set_data("b", "m.tag", {"tags": {"u.x": {}}}, room)
    batch = world.log.begin()
    world.aliases.put(batch, f"#alias-{creator}:x", room, user_id(creator))
    world.aliases.publish(batch, room, True)
    world.log.append(batch)
    world.clock.advance(0.1)
    return room


def finish(world: World, deletion: Deletion, room: str) -> removal.Removal:
    for _ in range(2000):
        found = deletion.progress(room)
        if found is not None and found.phase == FINISHED:
            return found
        world.clock.advance(0.01)
    raise AssertionError("the deletion does not end")


def test_everything_goes_but_what_devices_have_yet_to_hear() -> None:
    world = World()
    other = lively(world, "a")
    before, kept = rows(world), mentions(world, other)
    room = lively(world, "c")
    since = world.synced("b")["next_batch"]
    deletion = deleting(world)
    world.run(deletion.delete(room, "operator"))
    found = finish(world, deletion, room)
    assert found.left == 2 and found.removed > 200
    assert mentions(world, other) == kept
    left = mentions(world, room)
    assert set(left) == {"memberships", "outliers", "transactions"} - ({"transactions"} - set(left))
    assert left["memberships"] == left["outliers"] == 2
    after = rows(world)
    grown = {name: after[name] - before[name] for name in after if after[name] > before[name]}
    assert grown.keys() <= {"memberships", "outliers", "event_ids", "transactions"}
    with world.log.snapshot() as snapshot:
        assert check_log(snapshot, inspect).problems == []
    assert room in world.synced("b", since)["rooms"]["leave"]
    assert world.rooms.find(room) is None
    with pytest.raises(MatrixError) as refused:
        world.say("b", room, "anybody?")
    assert refused.value.status == 404


def test_a_restart_in_the_middle_does_not_stop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "STEP", 7)
    monkeypatch.setattr(removal, "SCAN", 11)
    world = World()
    room = lively(world, "a")
    world.run(deleting(world).delete(room, "operator", block="spam"))
    phases = []
    while True:
        world.clock.advance(0.02)
        job = removal.removal_of(world.log, room)
        if job is None:
            break
        phases.append(job.phase)
        if len(phases) % 5 == 0:
            world = world.restart()
            again = deleting(world)
            with pytest.raises(MatrixError):
                world.rooms.check_open(room)
            again.wake()
    assert {"events", "nodes", "memberships", "log"} <= set(phases)
    assert set(mentions(world, room)) <= {"memberships", "outliers", "transactions", "blocked_rooms"}
    with world.log.snapshot() as snapshot:
        assert check_log(snapshot, inspect).problems == []
        assert removal.blocked_rooms(snapshot) == {room: "spam"}
        assert not list(snapshot.range(FOLLOWERS, b"\0", END))


def test_a_room_of_another_server_can_be_entered_again() -> None:
    town = Town()
    one, two = town.server("one"), town.server("two")
    room = one.create("alice")
    two.join("bob", room, one)
    one.say("alice", room, "before")
    town.settle()
    deletion = Deletion(two.rooms, town.clock)
    deletion.forget += [two.memberships.forget_room]
    two.run(deletion.delete(room))
    with pytest.raises(MatrixError) as refused:
        two.run(two.membership.join(two.who("bob"), room, {}, None))
    assert refused.value.error.endswith("being deleted on this server")
    for _ in range(3000):
        if removal.removal_of(two.log, room) is None:
            break
        town.clock.advance(0.02)
    town.settle()
    assert one.member("@bob:two", room) == "leave"
    assert two.rooms.find(room) is None
    two.join("bob", room, one)
    one.say("alice", room, "welcome back")
    town.settle()
    assert two.bodies(room) == ["welcome back"]
    assert two.member("@bob:two", room) == "join"
    assert two.state_of(room) == one.state_of(room)


def test_blocked_rooms_keep_people_out() -> None:
    world = World()
    room = world.room("a")
    deletion = deleting(world)
    world.run(deletion.block(room, "spam"))
    assert deletion.blocked() == {room: "spam"}
    with pytest.raises(MatrixError) as refused:
        world.join("b", room)
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
    world.run(deletion.unblock(room))
    world.join("b", room)
    with pytest.raises(MatrixError) as unknown:
        world.run(deletion.delete("!nowhere:x"))
    assert unknown.value.status == 404


def test_blocked_rooms_are_not_shown() -> None:
    world = World()
    room = world.room("a")
    deletion = deleting(world)
    with world.log.snapshot() as snapshot:
        assert Overviews().of(snapshot, room) is not None
    world.run(deletion.block(room, "spam"))
    with world.log.snapshot() as snapshot:
        assert Overviews().of(snapshot, room) is None


def test_clients_sync_through_a_deletion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever syncs at whatever moment of it gets an answer, and hears once that they are out of the room."""
    monkeypatch.setattr(removal, "STEP", 7)
    monkeypatch.setattr(removal, "SCAN", 11)
    world = World()
    other = lively(world, "c")
    room = lively(world, "a")
    since = world.synced("b")["next_batch"]
    waiting = world.poll("b", since)
    deletion = deleting(world)
    world.run(deletion.delete(room, "operator"))
    left = 0
    moments = 0
    while removal.removal_of(world.log, room) is not None:
        world.clock.advance(0.01)
        found = world.synced("b", since)
        left += room in found.get("rooms", {}).get("leave", {})
        assert room not in found.get("rooms", {}).get("join", {})
        since = found["next_batch"]
        begun = world.synced("b")["rooms"]
        assert other in begun["join"] and room not in begun["join"]
        world.say("c", other, f"{moments}")
        moments += 1
    assert moments > 20 and left == 1
    assert waiting.body is not None and room in waiting.body["rooms"]["leave"]


def test_a_blocked_room_is_closed_to_invites_knocks_and_joins_through_others() -> None:
    town = Town()
    one, two = town.server("one"), town.server("two")
    two.membership.remote = two.remote
    room = one.create("alice")
    one.state("alice", room, "m.room.join_rules", {"join_rule": "knock"})
    deletion = Deletion(two.rooms, town.clock)
    two.run(deletion.block(room, "spam"))

    def invited() -> None:
        one.run(one.remote.invite(one.rooms.get(room), "@alice:one", "@bob:two", {"membership": "invite"}))

    def knocked() -> None:
        two.run(two.membership.knock(two.who("bob"), room, None, ["one"]))

    def joined() -> None:
        two.run(two.membership.join(two.who("bob"), room, {}, None, via=["one"]))

    for enter in (invited, knocked, joined):
        with pytest.raises((MatrixError, RequestRefused)) as refused:
            enter()
        assert refused.value.status == 403
    assert one.member("@bob:two", room) is None and not two.memberships.rooms_of("@bob:two")
    assert [path for origin, _, _, path in town.requests if origin == "two"] == [], "nobody else hears of it"
    two.run(deletion.unblock(room))
    knocked()
    town.settle()
    assert one.member("@bob:two", room) == "knock"
