"""Room versions as a table of switches: each version is the previous one and its differences.

Specification: "Room Versions". No other module compares version numbers; code asks a switch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType

from federation.rules.errors import MatrixError


class EventIdFormat(Enum):
    """How an event gets its id."""

    DOMAIN = "chosen by the sender, $opaque:domain"
    BASE64 = "reference hash, unpadded base64"
    URL_SAFE = "reference hash, unpadded URL-safe base64"


class StateResolution(Enum):
    """Which algorithm merges forks."""

    V1 = "1"
    V2 = "2"
    V2_1 = "2.1"


@dataclass(frozen=True)
class RedactionRules:
    """What redaction keeps: top-level keys, and keys of ``content`` by event type.

    ``whole_content`` lists types whose content stays untouched; ``keep_signed_invite`` keeps
    ``third_party_invite.signed`` of a membership.
    """

    top: frozenset[str]
    content: Mapping[str, tuple[str, ...]]
    whole_content: frozenset[str] = frozenset()
    keep_signed_invite: bool = False

    def with_content(self, **keep: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
        """The content table with some ``m.room.*`` rows replaced; an empty tuple drops the row."""
        rows = {**self.content, **{f"m.room.{name}": keys for name, keys in keep.items()}}
        return MappingProxyType({type_: keys for type_, keys in rows.items() if keys})


_REDACTION_V1 = RedactionRules(
    top=frozenset(
        (
            "event_id",
            "type",
            "room_id",
            "sender",
            "state_key",
            "content",
            "hashes",
            "signatures",
            "depth",
            "prev_events",
            "prev_state",
            "auth_events",
            "origin",
            "origin_server_ts",
            "membership",
        )
    ),
    content=MappingProxyType(
        {
            "m.room.member": ("membership",),
            "m.room.create": ("creator",),
            "m.room.join_rules": ("join_rule",),
            "m.room.power_levels": (
                "ban",
                "events",
                "events_default",
                "kick",
                "redact",
                "state_default",
                "users",
                "users_default",
            ),
            "m.room.aliases": ("aliases",),
            "m.room.history_visibility": ("history_visibility",),
        }
    ),
)
_REDACTION_V6 = replace(_REDACTION_V1, content=_REDACTION_V1.with_content(aliases=()))
_REDACTION_V8 = replace(_REDACTION_V6, content=_REDACTION_V6.with_content(join_rules=("join_rule", "allow")))
_REDACTION_V9 = replace(
    _REDACTION_V8,
    content=_REDACTION_V8.with_content(member=("membership", "join_authorised_via_users_server")),
)
_REDACTION_V11 = replace(
    _REDACTION_V9,
    top=_REDACTION_V9.top - {"origin", "membership", "prev_state"},
    content=_REDACTION_V9.with_content(
        create=(),
        power_levels=(*_REDACTION_V9.content["m.room.power_levels"], "invite"),
        redaction=("redacts",),
    ),
    whole_content=frozenset({"m.room.create"}),
    keep_signed_invite=True,
)


@dataclass(frozen=True, eq=False)
class RoomVersion:
    """The switches of one room version. The defaults are those of version 1."""

    id: str
    event_id_format: EventIdFormat = EventIdFormat.DOMAIN
    state_resolution: StateResolution = StateResolution.V1
    redaction: RedactionRules = field(default=_REDACTION_V1, repr=False)
    strict_canonical_json: bool = False
    """Floats and integers beyond ±(2^53-1) make an event invalid."""
    max_depth: int = 2**63 - 1
    enforce_key_validity: bool = False
    """A key has to be valid at the event's ``origin_server_ts``."""
    event_id_domain_signs: bool = True
    """The server named in the event id has to sign too."""
    aliases_rule: bool = True
    """``m.room.aliases`` have a rule of their own, bound to the sender's server."""
    redaction_rule: bool = True
    """Redactions are judged by the auth rules rather than when they are applied."""
    limit_notifications: bool = False
    """Changing ``notifications`` of the power levels is bound like ``events``."""
    knock: bool = False
    restricted_join: bool = False
    knock_restricted: bool = False
    string_power_levels: bool = True
    float_power_levels: bool = True
    integer_power_levels: bool = False
    """Every power level has to be a JSON integer, wherever it stands."""
    creator_is_sender: bool = False
    """The creator is the sender of the create event; ``content.creator`` is neither needed nor read."""
    redacts_in_content: bool = False
    room_id_is_create_hash: bool = False
    """The room id is the id of the create event, which carries none and is not cited in ``auth_events``."""
    privileged_creators: bool = False
    """Creators (``additional_creators`` among them) stand above every power level."""

    @property
    def hashed_event_ids(self) -> bool:
        """Whether event ids are reference hashes, so that events refer to each other by id alone."""
        return self.event_id_format is not EventIdFormat.DOMAIN


_V1 = RoomVersion("1")
_V2 = replace(_V1, id="2", state_resolution=StateResolution.V2)
_V3 = replace(
    _V2, id="3", event_id_format=EventIdFormat.BASE64, event_id_domain_signs=False, redaction_rule=False
)
_V4 = replace(_V3, id="4", event_id_format=EventIdFormat.URL_SAFE)
_V5 = replace(_V4, id="5", enforce_key_validity=True)
_V6 = replace(
    _V5,
    id="6",
    redaction=_REDACTION_V6,
    strict_canonical_json=True,
    max_depth=2**53 - 1,
    aliases_rule=False,
    limit_notifications=True,
    float_power_levels=False,
)
_V7 = replace(_V6, id="7", knock=True)
_V8 = replace(_V7, id="8", redaction=_REDACTION_V8, restricted_join=True)
_V9 = replace(_V8, id="9", redaction=_REDACTION_V9)
_V10 = replace(
    _V9, id="10", knock_restricted=True, string_power_levels=False, integer_power_levels=True
)
_V11 = replace(_V10, id="11", redaction=_REDACTION_V11, creator_is_sender=True, redacts_in_content=True)
_V12 = replace(
    _V11,
    id="12",
    state_resolution=StateResolution.V2_1,
    room_id_is_create_hash=True,
    privileged_creators=True,
)

ROOM_VERSIONS: Mapping[str, RoomVersion] = MappingProxyType(
    {version.id: version for version in (_V1, _V2, _V3, _V4, _V5, _V6, _V7, _V8, _V9, _V10, _V11, _V12)}
)
DEFAULT = "12"


def room_version(version_id: str) -> RoomVersion:
    """The switches of a version. Raises MatrixError 400 M_UNSUPPORTED_ROOM_VERSION for one that we lack."""
    version = ROOM_VERSIONS.get(version_id)
    if version is None:
        raise MatrixError(400, "M_UNSUPPORTED_ROOM_VERSION", "This server does not support that room version")
    return version
