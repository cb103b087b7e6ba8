"""Policy servers: which server a room has its events looked at by, and whether it has recommended one.

Server-Server API, "Policy Servers". A recommendation is a signature under the event, by a key that stands in the room's
state and nowhere else: it can be checked while the policy server is away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from federation.rules.event import Event
from federation.rules.hashes import decode_base64
from federation.rules.signing import POLICY_KEY_ID, signature_is_valid, with_signature

POLICY = ("m.room.policy", "")


@dataclass(frozen=True, slots=True)
class PolicyServer:
    """A room's policy server: its name, and the 32 bytes of its key (other bytes fit no signature)."""

    server_name: str
    key: bytes


def policy_server_of(content: Mapping[str, Any]) -> PolicyServer | None:
    """The policy server that the content of m.room.policy names, None when it is not valid.

    Whether the room uses it depends on its having a joined member as well.
    """
    via, keys = content.get("via"), content.get("public_keys")
    key = keys.get("ed25519") if isinstance(keys, dict) else None
    if not isinstance(via, str) or not isinstance(key, str):
        return None
    try:
        return PolicyServer(via, decode_base64(key))
    except ValueError:
        return PolicyServer(via, b"")


def is_exempt(event: Event) -> bool:
    """Whether an event needs no recommendation: the one by which a room gets rid of its policy server."""
    return event.key == POLICY


def is_recommended(event: Event, server: PolicyServer) -> bool:
    """Whether the policy server has signed the event, with the key that the room knows it by."""
    signatures = event.pdu.get("signatures")
    of_server = signatures.get(server.server_name) if isinstance(signatures, dict) else None
    signature = of_server.get(POLICY_KEY_ID) if isinstance(of_server, dict) else None
    return signature_is_valid(event.signed_bytes, signature, server.key)


def with_recommendation(event: Event, server: PolicyServer, signatures: Mapping[str, Mapping[str, Any]]) -> Event:
    """The event with what a policy server answered; signatures that it has, of that server too, stay.

    Unverified: what the answer lacks, or has wrong, leaves an event that is not recommended.
    """
    signature = signatures.get(server.server_name, {}).get(POLICY_KEY_ID)
    if not isinstance(signature, str):
        return event
    pdu = with_signature(event.pdu, server.server_name, POLICY_KEY_ID, signature)
    return Event.from_pdu(pdu, event.version, event_id=event.event_id)
