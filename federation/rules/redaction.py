"""Redaction: what remains of an event whose content was taken away.

Specification: Room Versions, "Redactions". Hashes and signatures cover just this remainder.
"""

from typing import Any

from federation.rules.room_versions import RoomVersion


def redact(pdu: dict[str, Any], version: RoomVersion) -> dict[str, Any]:
    """A copy of an event with only the keys that its room version protects.

    ``unsigned`` is dropped. Nothing of the given event is changed; nested values are shared with it.
    """
    keep = version.redaction.top
    redacted = {key: value for key, value in pdu.items() if key in keep}
    redacted["content"] = redact_content(pdu.get("type"), pdu.get("content"), version)
    return redacted


def redact_content(type_: object, content: object, version: RoomVersion) -> dict[str, Any]:
    """What redaction leaves of an event's content."""
    if not isinstance(content, dict) or not isinstance(type_, str):
        return {}
    rules = version.redaction
    if type_ in rules.whole_content:
        return content
    keep = rules.content.get(type_)
    if keep is None:
        return {}
    redacted = {key: content[key] for key in keep if key in content}
    if rules.keep_signed_invite and type_ == "m.room.member":
        invite = content.get("third_party_invite")
        if isinstance(invite, dict) and "signed" in invite:
            redacted["third_party_invite"] = {"signed": invite["signed"]}
    return redacted
