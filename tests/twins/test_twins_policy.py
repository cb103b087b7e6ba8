"""Scenes in rooms that use a policy server. Server-Server API, "Policy Servers"."""

from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults

from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.signing import POLICY_KEY_ID
from homeserver.client.directory import Directory
from homeserver.rooms.deletion import Deletion
from homeserver.rooms.departures import Departures
from homeserver.rooms.policy import PATIENCE
from homeserver.rooms.room import Draft
from homeserver.rooms.upgrade import Upgrade
from homeserver.web.call import Call, Requester
from homeserver.web.limits import Limits
from homeserver.web.router import Router
from storage.log import events as event_log
from tests.fakes.hostile import Hostile
from tests.fakes.policy_server import PolicyTwin
from tests.fakes.town import Nobody, Town, Twin


class Scene:
    """Servers a and b and a hostile one in a room of alice's that the policy server watches."""

    def __init__(self, version: str = "10") -> None:
        self.town = Town()
        self.a, self.b = self.town.server("a"), self.town.server("b")
        self.police, self.evil = PolicyTwin(self.town), Hostile(self.town)
        for server in self.town.servers.values():
            server.membership.remote = server.remote
        self.room = self.a.create("alice", version=version)
        self.b.join("bob", self.room, via=self.a)
        self.police.join("warden", self.room, via=self.a)
        self.evil.join("mallory", self.room, via=self.a)
        self.town.settle()
        self.a.state("alice", self.room, "m.room.policy", self.police.content)
        self.town.settle()

    def signed(self, server: Twin, event_id: str) -> bool:
        record = event_log.event_by_id(server.log, event_id)
        assert record is not None
        event = Event.from_json(record.pdu, server.rooms.get(self.room).version)
        return POLICY_KEY_ID in event.pdu["signatures"].get(self.police.name, {})

    def refused(self, work: Any) -> MatrixError:
        with pytest.raises(MatrixError) as caught:
            self.town.run(work)
        return caught.value

    def says(self, body: str, txn_id: str | None = None, who: Requester | None = None) -> Any:
        content = {"msgtype": "m.text", "body": body}
        return self.a.sending.message(who or self.a.who("alice"), self.room, "m.room.message", content, txn_id)


@pytest.fixture
def scene() -> Scene:
    return Scene()


# -- what we send ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1", "10", "12"])
def test_what_we_send_is_signed_by_the_policy_server_first(version: str) -> None:
    scene = Scene(version)
    event_id = scene.a.say("alice", scene.room, "hello")
    scene.town.settle()
    assert scene.police.asked == ["m.room.message"]
    for server in (scene.a, scene.b, scene.evil):
        assert scene.signed(server, event_id) and server.knows(event_id) == "placed"
    assert scene.b.bodies(scene.room) == ["hello"]


def test_the_policy_itself_is_not_asked_about(scene: Scene) -> None:
    assert scene.police.asked == []
    scene.town.cut.add(frozenset(("a", "police")))
    scene.a.state("alice", scene.room, "m.room.policy", {})
    scene.a.say("alice", scene.room, "nobody watches")
    assert scene.police.asked == []


@pytest.mark.parametrize("key", ["other", None])
def test_other_events_of_that_type_are_asked_about(scene: Scene, key: str | None) -> None:
    if key is None:
        scene.town.run(scene.a.sending.message(scene.a.who("alice"), scene.room, "m.room.policy", {}, None))
    else:
        scene.a.state("alice", scene.room, "m.room.policy", {"any": "thing"}, key)
    assert scene.police.asked == ["m.room.policy"]


def test_a_refusal_reaches_the_client_word_for_word_and_nothing_is_sent(scene: Scene) -> None:
    before = scene.a.heads(scene.room)
    error = scene.refused(scene.says("spam"))
    assert (error.status, error.errcode, error.error) == (400, "M_FORBIDDEN", "That looks like spam")
    assert scene.a.heads(scene.room) == before and scene.a.bodies(scene.room) == []


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (MatrixError(404, "M_NOT_FOUND", "x"), (404, "M_NOT_FOUND")),
        (MatrixError(429, "M_LIMIT_EXCEEDED", "x"), (429, "M_LIMIT_EXCEEDED")),
        (MatrixError(401, "M_UNKNOWN_TOKEN", "x"), (403, "M_FORBIDDEN")),
        (MatrixError(403, "M_UNKNOWN_TOKEN", "x"), (403, "M_FORBIDDEN")),
        (MatrixError(503, "M_UNKNOWN", "x"), (502, "M_UNKNOWN")),
    ],
)
def test_no_error_of_a_policy_server_ends_a_client_s_session(
    scene: Scene, said: MatrixError, heard: tuple[int, str]
) -> None:
    scene.police.error = said
    error = scene.refused(scene.says("spam"))
    assert (error.status, error.errcode) == heard


def test_nothing_is_sent_while_the_policy_server_is_away(scene: Scene) -> None:
    scene.town.cut.add(frozenset(("a", "police")))
    assert scene.refused(scene.says("hello")).status == 502
    assert scene.a.bodies(scene.room) == []
    scene.town.cut.clear()
    scene.a.say("alice", scene.room, "again")
    assert scene.a.bodies(scene.room) == ["again"]


def test_a_policy_server_that_never_answers_is_not_waited_for(scene: Scene) -> None:
    scene.police.takes = 1e6
    began = scene.town.clock.seconds()
    assert scene.refused(scene.says("hello")).status == 502
    event = scene.evil.event(scene.room)
    scene.evil.transaction(scene.a, event)
    assert scene.a.knows(event.event_id) == "soft-failed"
    assert scene.town.clock.seconds() - began < 2 * PATIENCE + 1


def test_a_wrong_signature_is_none(scene: Scene) -> None:
    scene.police.policy_key = scene.town.key_of("police")
    assert scene.refused(scene.says("hello")).status == 502


def test_without_a_joined_user_it_is_not_the_room_s_policy_server(scene: Scene) -> None:
    scene.town.run(scene.a.membership.kick(scene.a.who("alice"), scene.room, "@warden:police", None))
    scene.town.settle()
    scene.police.asked.clear()
    event_id = scene.a.say("alice", scene.room, "spam")
    scene.town.settle()
    assert scene.police.asked == [] and scene.b.knows(event_id) == "placed"


@pytest.mark.parametrize(
    "content", [{"via": "police"}, {"via": "police", "public_keys": {"ed25519": 3}}, {"public_keys": {"ed25519": "x"}}]
)
def test_a_policy_that_is_not_valid_is_none(scene: Scene, content: dict[str, Any]) -> None:
    scene.a.state("alice", scene.room, "m.room.policy", content)
    scene.a.say("alice", scene.room, "spam")
    assert scene.police.asked == [] and scene.a.bodies(scene.room) == ["spam"]


def test_a_room_with_us_for_its_policy_server_takes_nothing_but_another_policy(scene: Scene) -> None:
    scene.a.state("alice", scene.room, "m.room.policy", {**scene.police.content, "via": "a"})
    error = scene.refused(scene.says("hello"))
    assert (error.status, error.errcode) == (404, "M_UNRECOGNIZED")
    scene.a.state("alice", scene.room, "m.room.policy", {})
    scene.a.say("alice", scene.room, "free")


def test_the_operation_itself_is_not_ours(scene: Scene) -> None:
    pdu = scene.a.draft("alice", scene.room, "m.room.message", {}).pdu
    error = scene.refused(scene.b.client.request("a", "POST", "/_matrix/policy/v1/sign", pdu))
    assert (error.status, error.errcode) == (404, "M_UNRECOGNIZED")


def test_the_room_may_move_on_while_the_policy_server_thinks(scene: Scene) -> None:
    """The event takes its place beside what came, and everybody has both."""
    scene.police.takes = 5.0
    moved: list[str] = []

    def meanwhile() -> None:
        scene.police.meanwhile = lambda: None
        room = scene.b.rooms.get(scene.room)
        event = room.decide(Draft("@bob:b", "m.room.policy", {}, state_key=""))
        batch = scene.b.rooms.log.begin()
        room.stage(batch, event)
        scene.b.rooms.log.append(batch)
        moved.append(event.event_id)

    levels = dict(scene.a.rooms.get(scene.room).content("m.room.power_levels"))
    scene.a.state("alice", scene.room, "m.room.power_levels", {**levels, "state_default": 0})
    scene.town.settle()
    scene.police.meanwhile = meanwhile
    event_id = scene.a.say("alice", scene.room, "slowly")
    scene.town.settle()
    record = event_log.event_by_id(scene.a.log, event_id)
    assert record is not None and moved
    assert scene.a.heads(scene.room) == {event_id, moved[0]} == scene.b.heads(scene.room)
    assert scene.a.bodies(scene.room) == scene.b.bodies(scene.room) == ["slowly"]


def test_whoever_loses_the_right_meanwhile_is_refused(scene: Scene) -> None:
    scene.a.join("carol", scene.room)
    scene.police.takes = 5.0
    content = {"membership": "ban"}

    def meanwhile() -> None:
        scene.police.meanwhile = lambda: None
        room = scene.a.rooms.get(scene.room)
        event = room.decide(Draft("@alice:a", "m.room.member", content, state_key="@carol:a"))
        batch = scene.a.rooms.log.begin()
        room.stage(batch, event)
        scene.a.rooms.log.append(batch)

    scene.police.meanwhile = meanwhile
    assert scene.refused(scene.says("hello", who=scene.a.who("carol"))).status == 403
    assert scene.a.bodies(scene.room) == []


def test_a_repeated_request_is_one_event(scene: Scene) -> None:
    """The second comes while the policy server still thinks about the first; a third after a restart."""
    scene.police.takes = 5.0
    both = [Deferred.fromCoroutine(scene.says("once", "t1")) for _ in range(2)]
    first, second = scene.town.run(gatherResults(both))
    assert first == second and scene.a.bodies(scene.room) == ["once"]
    assert scene.town.run(scene.says("once", "t1")) == first
    record = event_log.event_by_id(scene.a.log, first)
    assert record is not None and record.txn == ("DEValice", "t1")


def test_a_redaction_redacts_here_and_there(scene: Scene) -> None:
    event_id = scene.a.say("alice", scene.room, "oops")
    scene.town.run(scene.a.sending.redact(scene.a.who("alice"), scene.room, event_id, None, "r1"))
    scene.town.settle()
    assert scene.a.bodies(scene.room) == scene.b.bodies(scene.room) == ["(redacted)"]
    assert scene.police.asked[-1] == "m.room.redaction"


def test_memberships_are_asked_about(scene: Scene) -> None:
    scene.a.join("carol", scene.room)
    scene.town.run(scene.a.membership.kick(scene.a.who("alice"), scene.room, "@carol:a", None))
    scene.town.settle()
    assert scene.police.asked == ["m.room.member", "m.room.member"]
    assert scene.b.member("@carol:a", scene.room) == "leave"
    member = scene.b.rooms.get(scene.room).state("m.room.member", "@carol:a")
    assert member is not None and scene.signed(scene.b, member.event_id)


def test_an_invite_is_signed_before_the_other_server_gets_it(scene: Scene) -> None:
    c = scene.town.server("c")
    scene.town.run(scene.a.membership.invite(scene.a.who("alice"), scene.room, "@carl:c", None))
    invite = scene.a.rooms.get(scene.room).state("m.room.member", "@carl:c")
    assert invite is not None and set(invite.pdu["signatures"]) == {"a", "c", "police"}
    assert scene.signed(c, invite.event_id) and scene.police.asked == ["m.room.member"]
    scene.police.refuses = lambda event: True
    assert scene.refused(scene.a.membership.invite(scene.a.who("alice"), scene.room, "@carla:c", None)).status == 400
    assert not [path for _, to, _, path in scene.town.requests if to == "c" and "carla" in path]
    assert scene.a.member("@carla:c", scene.room) is None


def test_an_invite_of_somebody_of_the_policy_server_keeps_both_signatures(scene: Scene) -> None:
    """Also when it answers with nothing but the one that it has just made."""
    resident, key_id = scene.police.federated.resident, scene.town.key_of("police").key_id
    sign = resident.sign

    def alone(event: Event) -> dict[str, Any]:
        pdu = sign(event)
        return {**pdu, "signatures": {"police": {key_id: pdu["signatures"]["police"][key_id]}}}

    resident.sign = alone  # type: ignore[method-assign]
    scene.town.run(scene.a.membership.invite(scene.a.who("alice"), scene.room, "@guard:police", None))
    invite = scene.a.rooms.get(scene.room).state("m.room.member", "@guard:police")
    assert invite is not None
    assert set(invite.pdu["signatures"]["police"]) == {POLICY_KEY_ID, key_id}
    assert scene.police.asked == ["m.room.member"]


def test_a_changed_profile_is_asked_about_room_by_room(scene: Scene) -> None:
    other = scene.a.create("alice")
    scene.police.refuses = lambda event: event.content.get("displayname") == "spam"
    scene.town.run(scene.a.membership.on_profile_change("@alice:a", {"displayname": "Alice"}))
    assert scene.a.rooms.get(scene.room).content("m.room.member", "@alice:a")["displayname"] == "Alice"
    scene.town.run(scene.a.membership.on_profile_change("@alice:a", {"displayname": "spam"}))
    assert scene.a.rooms.get(scene.room).content("m.room.member", "@alice:a")["displayname"] == "Alice"
    assert scene.a.rooms.get(other).content("m.room.member", "@alice:a")["displayname"] == "spam"
    assert scene.police.asked == ["m.room.member", "m.room.member"]


# -- what we receive -------------------------------------------------------------------------------------------------


def test_what_comes_unsigned_is_asked_about_and_kept_signed(scene: Scene) -> None:
    event = scene.evil.event(scene.room, content={"msgtype": "m.text", "body": "fine"})
    assert scene.evil.transaction(scene.a, event)["pdus"] == {event.event_id: {}}
    assert scene.police.asked == ["m.room.message"]
    assert scene.a.knows(event.event_id) == "placed" and scene.signed(scene.a, event.event_id)
    told = scene.b.request(scene.a, "GET", f"/_matrix/federation/v1/event/{event.event_id}")
    assert POLICY_KEY_ID in told["pdus"][0]["signatures"]["police"]


def test_what_comes_signed_is_not_asked_about(scene: Scene) -> None:
    event = scene.evil.event(scene.room)
    pdu = {**event.pdu, "signatures": {**event.pdu["signatures"], **scene.police.signature(event)}}
    scene.town.cut.add(frozenset(("a", "police")))
    scene.evil.transaction(scene.a, pdu)
    assert scene.a.knows(event.event_id) == "placed" and scene.police.asked == []


def test_what_the_policy_server_refuses_is_soft_failed(scene: Scene) -> None:
    event = scene.evil.event(scene.room, content={"msgtype": "m.text", "body": "spam"})
    results = scene.evil.transaction(scene.a, event, txn="t1")["pdus"]
    assert results == {event.event_id: {}}
    assert scene.a.knows(event.event_id) == "soft-failed" and event.event_id not in scene.a.heads(scene.room)
    scene.evil.transaction(scene.a, event, txn="t2")
    assert scene.police.asked == ["m.room.message"]


def test_state_that_it_refuses_does_not_take_hold(scene: Scene) -> None:
    scene.police.refuses = lambda event: event.type == "m.room.member"
    name = {"membership": "join", "displayname": "Mallory"}
    event = scene.evil.event(scene.room, type="m.room.member", state_key="@mallory:evil", content=name)
    scene.evil.transaction(scene.a, event)
    assert scene.a.knows(event.event_id) == "soft-failed"
    assert scene.a.rooms.get(scene.room).content("m.room.member", "@mallory:evil").get("displayname") is None


def test_a_wrong_signature_is_asked_about_again(scene: Scene) -> None:
    event = scene.evil.event(scene.room)
    forged = {"police": {POLICY_KEY_ID: "A" * 86}}
    scene.evil.transaction(scene.a, {**event.pdu, "signatures": {**event.pdu["signatures"], **forged}})
    assert scene.police.asked == ["m.room.message"] and scene.a.knows(event.event_id) == "placed"


def test_without_an_answer_it_is_soft_failed(scene: Scene) -> None:
    scene.town.cut.add(frozenset(("a", "police")))
    event = scene.evil.event(scene.room)
    scene.evil.transaction(scene.a, event)
    assert scene.a.knows(event.event_id) == "soft-failed"


def test_events_of_a_gap_are_asked_about(scene: Scene) -> None:
    missing = scene.evil.event(scene.room, content={"msgtype": "m.text", "body": "spam"})
    room = scene.evil.rooms.get(scene.room)
    batch = scene.evil.rooms.log.begin()
    room.stage(batch, missing)
    scene.town.run(scene.evil.rooms.log.append(batch))
    later = scene.evil.event(scene.room, content={"msgtype": "m.text", "body": "fine"})
    scene.evil.transaction(scene.a, later)
    assert scene.a.knows(missing.event_id) == "soft-failed" and scene.a.knows(later.event_id) == "placed"


def test_whoever_joins_through_us_needs_it_too(scene: Scene) -> None:
    scene.police.refuses = lambda event: event.sender == "@spammer:c"
    c = scene.town.server("c")
    c.membership.remote = c.remote
    error = scene.refused(c.remote.join("@spammer:c", scene.room, ["a"], {"membership": "join"}))
    assert error.status == 403 and scene.a.member("@spammer:c", scene.room) is None
    c.join("carl", scene.room, via=scene.a)
    scene.town.settle()
    joined = scene.b.rooms.get(scene.room).state("m.room.member", "@carl:c")
    assert joined is not None and scene.signed(scene.b, joined.event_id)


# -- what happens by itself, and in several steps --------------------------------------------------------------------


@pytest.mark.parametrize("version", ["10", "12"])
def test_an_upgrade_is_asked_about_step_by_step(scene: Scene, version: str) -> None:
    a = scene.a
    upgrade = Upgrade(a.rooms, a.aliases, a.create_rooms, Nobody())
    new = scene.town.run(upgrade.upgrade(a.who("alice"), scene.room, version, []))
    scene.town.settle()
    assert scene.b.rooms.get(scene.room).content("m.room.tombstone")["replacement_room"] == new
    assert scene.b.rooms.get(scene.room).content("m.room.power_levels")["events_default"] == 50
    assert scene.police.asked == ["m.room.tombstone", "m.room.power_levels"]
    tombstone = a.rooms.get(scene.room).state("m.room.tombstone")
    predecessor = a.rooms.get(new).content("m.room.create")["predecessor"]
    if version == "10":
        assert tombstone is not None and predecessor["event_id"] == tombstone.event_id


def test_a_refused_tombstone_is_no_upgrade(scene: Scene) -> None:
    scene.police.refuses = lambda event: True
    upgrade = Upgrade(scene.a.rooms, scene.a.aliases, scene.a.create_rooms, Nobody())
    assert scene.refused(upgrade.upgrade(scene.a.who("alice"), scene.room, "10", [])).errcode == "M_FORBIDDEN"
    assert scene.a.rooms.get(scene.room).state("m.room.tombstone") is None


def test_guests_leave_with_a_signature(scene: Scene) -> None:
    a = scene.a
    a.state("alice", scene.room, "m.room.guest_access", {"guest_access": "can_join"})
    guest = Requester("@7:a", "G", is_guest=True, token_id="7")
    scene.town.run(a.membership.join(guest, scene.room, {}, None))
    a.state("alice", scene.room, "m.room.guest_access", {"guest_access": "forbidden"})
    scene.town.settle()
    leave = scene.b.rooms.get(scene.room).state("m.room.member", "@7:a")
    assert leave is not None and leave.content["membership"] == "leave" and scene.signed(scene.b, leave.event_id)


def test_the_deactivated_and_those_of_a_deleted_room_leave_with_a_signature(scene: Scene) -> None:
    a = scene.a
    a.join("carol", scene.room)
    departures = Departures(a.rooms, scene.town.clock.callLater)
    batch = a.rooms.log.begin()
    departures.bring(batch, {"user_id": "@carol:a"})
    scene.town.run(a.rooms.log.append(batch))
    scene.town.settle()
    scene.town.run(Deletion(a.rooms, scene.town.clock).delete(scene.room, "operator"))
    scene.town.settle()
    for user_id in ("@carol:a", "@alice:a"):
        leave = scene.b.rooms.get(scene.room).state("m.room.member", user_id)
        assert leave is not None and leave.content["membership"] == "leave" and scene.signed(scene.b, leave.event_id)


def test_an_alias_that_is_deleted_leaves_the_room_with_a_signature(scene: Scene) -> None:
    a = scene.a
    batch = a.rooms.log.begin()
    a.aliases.put(batch, "#x:a", scene.room, "@alice:a")
    scene.town.run(a.rooms.log.append(batch))
    a.state("alice", scene.room, "m.room.canonical_alias", {"alias": "#x:a"})
    router = Router(Directory(a.rooms, a.aliases).routes(), Tokens(a), Limits({}, scene.town.clock.seconds))  # type: ignore[arg-type]
    call = Call("DELETE", "/_matrix/client/v3/directory/room/%23x:a", {"authorization": "Bearer alice"}, b"", "192.0.2.1")
    assert scene.town.run(router.handle(call)).status == 200
    current = a.rooms.get(scene.room).state("m.room.canonical_alias")
    assert current is not None and current.content == {} and scene.signed(a, current.event_id)


def test_many_heads_are_tied_up_with_a_signature(scene: Scene) -> None:
    pdus = [scene.evil.event(scene.room, content={"n": n}) for n in range(12)]
    scene.evil.transaction(scene.a, *pdus)
    tie = scene.a.heads(scene.room)
    assert len(tie) == 1 and scene.signed(scene.a, next(iter(tie)))


class Tokens:
    """Whoever names a local part is that user."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin

    def authenticate(self, token: str, address: str, user_agent: str) -> Requester:
        return self._twin.who(token)
