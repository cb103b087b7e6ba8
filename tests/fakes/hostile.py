"""A peer with its own keys that says whatever it likes: it makes events by hand and signs them, well or badly."""

from typing import Any

from federation.rules.event import Event, build_event
from federation.rules.hashes import content_hash, encode_base64
from federation.rules.room_versions import room_version
from federation.rules.signing import SigningKey
from tests.fakes.town import Town, Twin


class Hostile(Twin):
    """A whole server of the town, so that it can join rooms properly before it misbehaves."""

    def __init__(self, town: Town, name: str = "evil") -> None:
        super().__init__(town, name)
        town.servers[name] = self

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
