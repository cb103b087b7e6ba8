"""Scenes of invites by e-mail, whose identity server has found out whom they are for."""

from typing import Any

import pytest

from federation.rules.errors import MatrixError
from federation.rules.hashes import encode_base64
from federation.rules.signing import SigningKey, sign_json
from federation.wire.errors import RequestRefused
from storage.log import rooms as room_log
from tests.fakes.town import Town, Twin, WireClient

IDENTITY = SigningKey.from_seed(b"identity".ljust(32, b"-"), "identity", "ed25519:0")
PUBLIC = encode_base64(bytes(IDENTITY.verify_key))
URL = "https://identity/isvalid"


class Scene:
    """alice of a has invited somebody by e-mail into a private room; bob of b has bound the address."""

    def __init__(self) -> None:
        self.town = Town()
        self.a, self.b, self.c = (self.town.server(name) for name in "abc")
        for server in (self.a, self.b, self.c):
            server.membership.remote = server.remote
        self.room = self.a.create("alice", preset="private_chat")
        offered = {
            "display_name": "b...@x",
            "key_validity_url": URL,
            "public_key": PUBLIC,
            "public_keys": [{"public_key": PUBLIC, "key_validity_url": URL}],
        }
        self.a.state("alice", self.room, "m.room.third_party_invite", offered, "token")
        self.town.settle()

    def signed(self, mxid: str = "@bob:b", token: str = "token", key: SigningKey = IDENTITY) -> dict[str, Any]:
        return sign_json({"mxid": mxid, "token": token, "sender": "@alice:a"}, "identity", key)

    def event(self, **changes: Any) -> dict[str, Any]:
        signed = changes.pop("signed", self.signed())
        content = {"membership": "invite", "third_party_invite": {"display_name": "b", "signed": signed}}
        whole = {"type": "m.room.member", "room_id": self.room, "sender": "@alice:a", "state_key": "@bob:b"}
        return {**whole, "content": content, **changes}

    def exchange(self, event: dict[str, Any], who: Twin | None = None) -> Any:
        path = f"/_matrix/federation/v1/exchange_third_party_invite/{self.room}"
        return (who or self.b).request(self.a, "PUT", path, event)

    def onbind(self, server: Twin, *invites: Any, mxid: Any = "@bob:b") -> Any:
        body = {"medium": "email", "address": "b@x", "mxid": mxid, "invites": list(invites)}
        # An identity server; that the wire signs for it changes nothing.
        client = WireClient(self.town, "identity")
        self.town.key_of("identity")
        return self.town.run(client.request(server.name, "PUT", "/_matrix/federation/v1/3pid/onbind", body))

    def invite(self, **changes: Any) -> dict[str, Any]:
        whole = {"medium": "email", "address": "b@x", "mxid": "@bob:b", "room_id": self.room, "sender": "@alice:a"}
        return {**whole, "signed": self.signed(), **changes}

    def invited(self, server: Twin, user_id: str = "@bob:b") -> str | None:
        record = room_log.membership_in(server.log, user_id, self.room)
        return None if record is None else record.membership


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_an_exchanged_invite_is_signed_by_the_user_s_server_and_leads_into_the_room(scene: Scene) -> None:
    assert scene.exchange(scene.event()) == {}
    invite = scene.a.rooms.get(scene.room).state("m.room.member", "@bob:b")
    assert invite is not None and invite.sender == "@alice:a" and set(invite.pdu["signatures"]) == {"a", "b"}
    assert invite.content["third_party_invite"]["display_name"] == "b...@x"
    assert scene.invited(scene.b) == "invite"
    scene.b.run(scene.b.membership.join(scene.b.who("bob"), scene.room, {}, None))
    assert scene.a.member("@bob:b", scene.room) == "join"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"type": "m.room.message"}, 400),
        ({"room_id": "!other:a"}, 400),
        ({"state_key": "bob"}, 400),
        ({"content": {"membership": "join"}}, 400),
        ({"content": 3}, 400),
        ({"sender": "@zoe:a"}, 403),
        ({"state_key": "@eve:b"}, 403),
    ],
)
def test_what_is_no_exchange_is_refused(scene: Scene, changes: dict[str, Any], status: int) -> None:
    with pytest.raises(RequestRefused) as caught:
        scene.exchange(scene.event(**changes))
    assert caught.value.status == status
    assert scene.a.member("@bob:b", scene.room) is None and scene.a.member("@eve:b", scene.room) is None


def test_what_is_not_proven_is_refused(scene: Scene) -> None:
    forged = SigningKey.from_seed(b"f" * 32, "identity", "ed25519:0")
    for signed in (scene.signed(key=forged), scene.signed(token="other"), {**scene.signed(), "mxid": "@eve:b"}):
        with pytest.raises(RequestRefused) as caught:
            scene.exchange(scene.event(signed=signed))
        assert caught.value.status == 403
    assert scene.a.member("@bob:b", scene.room) is None and scene.town.key_questions == []


def test_a_revoked_key_proves_nothing(scene: Scene) -> None:
    scene.town.revoked_keys.add(PUBLIC)
    with pytest.raises(RequestRefused) as caught:
        scene.exchange(scene.event())
    assert caught.value.status == 403 and (URL, PUBLIC) in scene.town.key_questions
    assert scene.a.member("@bob:b", scene.room) is None


def test_an_invite_that_was_taken_back_is_none(scene: Scene) -> None:
    scene.a.state("alice", scene.room, "m.room.third_party_invite", {}, "token")
    with pytest.raises(RequestRefused):
        scene.exchange(scene.event())
    assert scene.a.member("@bob:b", scene.room) is None


def test_whoever_is_in_the_room_stays_there(scene: Scene) -> None:
    scene.exchange(scene.event())
    scene.b.run(scene.b.membership.join(scene.b.who("bob"), scene.room, {}, None))
    assert scene.exchange(scene.event()) == {}
    assert scene.a.member("@bob:b", scene.room) == "join"


def test_a_server_that_the_room_keeps_out_exchanges_nothing(scene: Scene) -> None:
    scene.a.state("alice", scene.room, "m.room.server_acl", {"allow": ["*"], "deny": ["c"]})
    with pytest.raises(RequestRefused) as caught:
        scene.exchange(scene.event(), scene.c)
    assert caught.value.status == 403


def test_the_inviter_s_server_is_asked_for_a_room_that_we_are_not_in(scene: Scene) -> None:
    assert scene.onbind(scene.b, scene.invite()) == {}
    assert [path for origin, to, _, path in scene.town.requests if (origin, to) == ("b", "a")] == [
        f"/_matrix/federation/v1/exchange_third_party_invite/{scene.room.replace('!', '%21').replace(':', '%3A')}"
    ]
    assert scene.invited(scene.b) == "invite" and scene.a.member("@bob:b", scene.room) == "invite"


def test_in_a_room_of_ours_the_invite_is_made_here_and_told_to_all(scene: Scene) -> None:
    for server, name in ((scene.b, "bert"), (scene.c, "carl")):
        scene.a.run(scene.a.membership.invite(scene.a.who("alice"), scene.room, server.user(name), None))
        server.run(server.membership.join(server.who(name), scene.room, {}, None))
    scene.town.settle()
    scene.town.requests.clear()
    scene.onbind(scene.b, scene.invite())
    assert not [path for *_, path in scene.town.requests if "exchange" in path]
    scene.town.settle()
    invite = scene.b.rooms.get(scene.room).state("m.room.member", "@bob:b")
    assert invite is not None and set(invite.pdu["signatures"]) == {"b"}
    for server in (scene.a, scene.b, scene.c):
        assert scene.invited(server) == "invite"
    scene.b.run(scene.b.membership.join(scene.b.who("bob"), scene.room, {}, None))
    scene.town.settle()
    assert scene.a.member("@bob:b", scene.room) == scene.c.member("@bob:b", scene.room) == "join"


def test_an_invite_of_our_own_is_redeemed_here(scene: Scene) -> None:
    scene.onbind(scene.a, scene.invite(signed=scene.signed("@zoe:a")), mxid="@zoe:a")
    assert scene.invited(scene.a, "@zoe:a") == "invite"


def test_one_bad_entry_does_not_hold_up_the_others(scene: Scene) -> None:
    """And nobody is sent anywhere by what was not even signed for the user."""
    other = {**scene.invite(), "signed": scene.signed("@eve:b"), "sender": "@x:c"}
    away = scene.invite(sender="@x:nowhere", room_id="!gone:nowhere")
    bad = [None, {}, {**scene.invite(), "room_id": 3}, {**scene.invite(), "sender": "x"}, other, away]
    assert scene.onbind(scene.b, *bad, scene.invite()) == {}
    assert scene.invited(scene.b) == "invite"
    assert not [to for _, to, _, _ in scene.town.requests if to == "c"]


@pytest.mark.parametrize("mxid", [None, 3, "bob", "@bob:a", "@nobody:b"])
def test_only_users_of_ours_bind_anything(scene: Scene, mxid: Any) -> None:
    with pytest.raises(RequestRefused) as caught:
        scene.onbind(scene.b, scene.invite(), mxid=mxid)
    assert caught.value.status == 400


def test_a_flood_of_invites_is_cut(scene: Scene) -> None:
    many = [scene.invite(sender="@x:nowhere", room_id=f"!r{n}:nowhere") for n in range(200)]
    scene.onbind(scene.b, *many)
    assert len([to for _, to, _, _ in scene.town.requests if to == "nowhere"]) == 50


def test_a_client_redeems_the_invite_of_another_server_s_user(scene: Scene) -> None:
    scene.a.run(scene.a.membership.invite(scene.a.who("alice"), scene.room, "@bert:b", None))
    scene.b.run(scene.b.membership.join(scene.b.who("bert"), scene.room, {}, None))
    scene.town.settle()
    scene.town.revoked_keys.add(PUBLIC)
    with pytest.raises(MatrixError) as caught:
        scene.b.run(scene.b.membership.join(scene.b.who("bob"), scene.room, {}, None, scene.signed()))
    assert caught.value.status == 403
    scene.town.revoked_keys.clear()
    scene.b.run(scene.b.membership.join(scene.b.who("bob"), scene.room, {}, None, scene.signed()))
    scene.town.settle()
    assert scene.a.member("@bob:b", scene.room) == "join"
    with pytest.raises(MatrixError):
        scene.b.run(scene.b.membership.join(scene.b.who("eve"), scene.room, {}, None, scene.signed()))
