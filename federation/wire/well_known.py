"""Signed well-known records: making, reading, verifying, and deciding whether to follow one. Pure.

``docs/signed-well-known.md`` describes the scheme for other implementers; the rules here are numbered as there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, NamedTuple

from federation.rules import canonical_json
from federation.rules.endpoint import parse_server_name
from federation.rules.errors import MatrixError
from federation.rules.ids import is_valid_key_id
from federation.rules.signing import SigningKey, bytes_to_sign, sign_json, signature_is_valid

Policy = Literal["prefer", "require", "ignore"]

MAX_BYTES = 50 * 1024
MAX_SIGNATURES = 16


class WellKnownError(ValueError):
    """A document that is no answer to ``/.well-known/matrix/server``; the message says why."""


class Record(NamedTuple):
    """A document as it was fetched. ``address`` is its ``m.server``; ``signed`` says whether it claims a signature."""

    address: str
    document: Mapping[str, Any]
    signed: bool


@dataclass(frozen=True, slots=True)
class Pin:
    """What we hold to be true of a domain: its keys (id to 32 bytes) and where its last good record pointed."""

    keys: Mapping[str, bytes]
    address: str
    valid_until_ts: int


class Outcome(Enum):
    """What to do about a domain."""

    FOLLOW = "follow"
    """Go where the record points."""
    KEEP = "keep"
    """Go where the last good record pointed; the operator is told why."""
    FALL_BACK = "fall back"
    """There is no record and none is needed: discovery goes on with SRV records."""
    REFUSE = "refuse"
    """The policy demands a good record and there is none: the domain is not reached."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision. ``address`` is where to go (None for FALL_BACK and REFUSE); ``pin`` replaces the domain's pin
    when it is not None; ``trouble`` says that an operator should look.
    """

    outcome: Outcome
    address: str | None
    reason: str
    pin: Pin | None = None
    trouble: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """What the signatures on a record are worth.

    ``good``: keys whose signature is right; ``wrong``: key ids whose signature is not; ``unknown``: ids of keys that
    we don't have. ``problem`` is what else is wrong (name, time), "" if nothing.
    """

    good: Mapping[str, bytes] = field(default_factory=dict)
    wrong: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    problem: str = ""


def make_record(
    server_name: str, address: str, valid_until_ts: int, keys: list[SigningKey]
) -> dict[str, Any]:
    """Our own record, signed by each of the keys. Raises ValueError when the names are none."""
    if parse_server_name(server_name) is None or parse_server_name(address) is None:
        raise ValueError("server_name and m.server have to be server names")
    record: dict[str, Any] = {
        "m.server": address,
        "server_name": server_name,
        "valid_until_ts": valid_until_ts,
    }
    for key in keys:
        record = sign_json(record, server_name, key)
    return record


def parse(body: bytes) -> Record:
    """Read a document, signed or not. Raises WellKnownError."""
    if len(body) > MAX_BYTES:
        raise WellKnownError("the document is too large")
    try:
        document = canonical_json.decode_strict(body)
    except MatrixError as error:
        raise WellKnownError(f"the document is not JSON ({error.error})") from None
    address = document.get("m.server") if isinstance(document, dict) else None
    if not isinstance(address, str):
        raise WellKnownError("the document has no m.server")
    if parse_server_name(address) is None:
        raise WellKnownError("m.server is not a server name")
    return Record(address, document, "signatures" in document)


def signing_key_ids(record: Record, server_name: str) -> tuple[str, ...]:
    """The ids of the keys with which a domain claims to have signed, in order, at most 16."""
    signatures = record.document.get("signatures")
    of_server = signatures.get(server_name) if isinstance(signatures, dict) else None
    if not isinstance(of_server, dict):
        return ()
    return tuple(key_id for key_id in of_server if is_valid_key_id(key_id))[:MAX_SIGNATURES]


def verify(record: Record, server_name: str, keys: Mapping[str, bytes], now_ms: int) -> Checked:
    """Check a record's name, time and signatures against public keys."""
    document = record.document
    ids = signing_key_ids(record, server_name)
    good: dict[str, bytes] = {}
    wrong: list[str] = []
    try:
        message = bytes_to_sign(document)
    except MatrixError as error:
        return Checked(problem=f"it is not canonical JSON ({error.error})")
    for key_id in ids:
        key = keys.get(key_id)
        if key is None:
            continue
        if signature_is_valid(message, document["signatures"][server_name][key_id], key):
            good[key_id] = key
        else:
            wrong.append(key_id)
    unknown = tuple(key_id for key_id in ids if key_id not in keys)
    return Checked(good, tuple(wrong), unknown, _problem(document, server_name, ids, now_ms))


def _problem(document: Mapping[str, Any], server_name: str, ids: tuple[str, ...], now_ms: int) -> str:
    if document.get("server_name") != server_name:
        return "it is for another domain"
    valid_until = document.get("valid_until_ts")
    if type(valid_until) is not int:
        return "it does not say until when it is valid"
    if valid_until <= now_ms:
        return "it has expired"
    if not ids:
        return f"it has no signature of {server_name}"
    return ""


def decide(
    server_name: str,
    policy: Policy,
    pin: Pin | None,
    record: Record | None,
    keys: Mapping[str, bytes],
    now_ms: int,
) -> Verdict:
    """What to do about a domain, given its document (None when there is none that can be read).

    ``keys`` are the domain's published keys, as far as they could be had; a pinned key counts as itself, whatever is
    published under its id.
    """
    if policy == "ignore":
        return _unverified(record, "signatures are not looked at for this domain")
    if record is None:
        return _without(policy, pin, None, "there is no readable record")
    if not record.signed:
        return _without(policy, pin, record, "its record is not signed")
    pinned = pin.keys if pin is not None else {}
    checked = verify(record, server_name, {**keys, **pinned}, now_ms)
    fault = checked.problem or _signature_fault(checked, pinned)
    if fault:
        return _without(policy, pin, record, fault)
    # Published keys that signed beside a pinned one are pinned with it; keys that no longer sign are let go.
    renewed = Pin(dict(checked.good), record.address, record.document["valid_until_ts"])
    reason = "signed by the pinned key"
    if pin is None:
        reason = "signed, and no key of the domain was pinned before"
    elif set(renewed.keys) != set(pinned):
        reason = "signed by the pinned key, which hands over to another"
    return Verdict(Outcome.FOLLOW, record.address, reason, renewed)


def _signature_fault(checked: Checked, pinned: Mapping[str, bytes]) -> str:
    if checked.wrong:
        return f"its signature with {checked.wrong[0]} is wrong"
    if pinned and not set(pinned) & set(checked.good):
        return "it is not signed by the pinned key"
    if not checked.good:
        return "the key that signed it could not be had"
    return ""


def _without(policy: Policy, pin: Pin | None, record: Record | None, fault: str) -> Verdict:
    """The rules for a domain without a good record."""
    if pin is not None:
        return Verdict(Outcome.KEEP, pin.address, f"pinned, but {fault}: the last good address is kept", None, True)
    if policy == "require":
        return Verdict(Outcome.REFUSE, None, f"a signed record is required, but {fault}", None, True)
    verdict = _unverified(record, fault)
    return Verdict(verdict.outcome, verdict.address, fault, None, record is not None and record.signed)


def _unverified(record: Record | None, reason: str) -> Verdict:
    if record is None:
        return Verdict(Outcome.FALL_BACK, None, reason)
    return Verdict(Outcome.FOLLOW, record.address, reason)
