"""A peer with its own keys that says whatever it likes: it makes events by hand and signs them, well or badly."""

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import orjson
from twisted.internet.defer import Deferred, succeed

from federation.rules.canonical_json import encode_lax
from federation.rules.event import Event, build_event
from federation.rules.hashes import content_hash, encode_base64
from federation.rules.redaction import redact
from federation.rules.room_versions import room_version
from federation.rules.signing import SigningKey
from homeserver.web.call import Answer, Call
from tests.fakes.town import Town, Twin


class Hostile(Twin):
    """A whole server of the town, so that it can join rooms properly before it misbehaves."""

    def __init__(self, town: Town, name: str = "evil") -> None:
        super().__init__(town, name)
        town.servers[name] = self

    def lies(self, part: str, change: Callable[[Any], Any]) -> None:
        """From now on, what it answers on paths with ``part`` in them is changed."""
        honest = self.router.start

        def start(call: Call) -> "Deferred[Answer]":
            outcome = honest(call)
            answered = succeed(outcome) if isinstance(outcome, Answer) else outcome
            if part not in call.path:
                return answered
            return answered.addCallback(lambda found: Answer(found.status, change(orjson.loads(found.encoded()))))

        self.router.start = start  # type: ignore[method-assign]

    def crafted(self, room: str, **keys: Any) -> dict[str, Any]:
        """An event with these keys whatever they are, hashed and signed as if they were right."""
        key, version = self.town.key_of(self.name), self.rooms.get(room).version
        pdu = {**self.event(room).pdu, **keys}
        pdu = {name: value for name, value in pdu.items() if name not in ("hashes", "signatures", "unsigned")}
        pdu["hashes"] = {"sha256": encode_base64(sha256(encode_lax(pdu)).digest())}
        message = encode_lax(redact(pdu, version))
        return {**pdu, "signatures": {self.name: {key.key_id: encode_base64(key.sign(message))}}}

    def event(self, room_id: str, **changes: Any) -> Event:
        """A message of ``@mallory`` on the heads as this server knows them; ``changes`` replace what it is built of."""
        room = self.rooms.get(room_id)
        sender = changes.get("sender", self.user("mallory"))
        keys = [("m.room.power_levels", ""), ("m.room.member", sender)]
        if not room.version.room_id_is_create_hash:
            keys.insert(0, ("m.room.create", ""))
        wanted = {
            "sender": sender,
            "type": "m.room.message",
            "content": {"msgtype": "m.text", "body": "evil"},
            "state_key": None,
            "depth": 1 + max(depth for _, depth in room.meta.extremities),
            "prev_event_ids": [event_id for event_id, _ in room.meta.extremities],
            "auth_event_ids": [found.event_id for key in keys if (found := room.state(*key)) is not None],
            "origin_server_ts": self.town.now_ms(),
            "room_id": room_id,
            "signing_key": self.town.key_of(self.name),
            "server_name": self.name,
            **changes,
        }
        return build_event(room.version, **wanted)

    def unsigned_event(self, room_id: str) -> dict[str, Any]:
        return {**self.event(room_id).pdu, "signatures": {}}

    def wrongly_signed_event(self, room_id: str) -> dict[str, Any]:
        real = self.town.key_of(self.name)
        return self.event(room_id, signing_key=SigningKey.from_seed(b"x" * 32, self.name, real.key_id)).pdu

    def altered_event(self, room_id: str) -> dict[str, Any]:
        """The content was changed after signing: the hash is wrong, the signature holds for the redacted form."""
        return {**self.event(room_id).pdu, "content": {"msgtype": "m.text", "body": "altered"}}

    def rehashed_event(self, room_id: str) -> dict[str, Any]:
        """Content and hash were changed: the signature is wrong."""
        pdu = self.altered_event(room_id)
        version = room_version(self.rooms.get(room_id).version.id)
        return {**pdu, "hashes": {"sha256": encode_base64(content_hash(pdu, version))}}
