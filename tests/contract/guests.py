"""What guests may call: the specification's list ("Guest access"), and what this server opens to them beside it."""

_ROOM = "/_matrix/client/v3/rooms/{}"
_DEVICE = "/_matrix/client/v3/devices"
_PROFILE = "/_matrix/client/v3/profile/{}/{}"
_KEYS = "/_matrix/client/v3/keys"

LISTED = {
    ("GET", f"{_ROOM}/state"),
    ("GET", f"{_ROOM}/context/{{}}"),
    ("GET", f"{_ROOM}/event/{{}}"),
    ("GET", f"{_ROOM}/state/{{}}/{{}}"),
    ("GET", f"{_ROOM}/messages"),
    ("GET", f"{_ROOM}/members"),
    ("GET", f"{_ROOM}/initialSync"),
    ("GET", "/_matrix/client/v3/sync"),
    ("GET", "/_matrix/client/v3/events"),
    ("POST", f"{_ROOM}/join"),
    ("POST", f"{_ROOM}/leave"),
    ("PUT", f"{_ROOM}/send/{{}}/{{}}"),
    ("PUT", f"{_ROOM}/state/{{}}/{{}}"),
    ("PUT", "/_matrix/client/v3/sendToDevice/{}/{}"),
    ("PUT", _PROFILE),
    ("DELETE", _PROFILE),
    ("GET", _DEVICE),
    ("GET", _DEVICE + "/{}"),
    ("PUT", _DEVICE + "/{}"),
    ("GET", "/_matrix/client/v3/account/whoami"),
    ("POST", f"{_KEYS}/upload"),
    ("POST", f"{_KEYS}/query"),
    ("POST", f"{_KEYS}/claim"),
}

_FILTERS = "/_matrix/client/v3/user/{}/filter"
_LOGOUT = "/_matrix/client/v3/logout"

BESIDE = {
    ("GET", "/_matrix/client/v3/capabilities"): "tells what the caller may do",
    ("POST", _FILTERS): "part of syncing",
    ("GET", _FILTERS + "/{}"): "part of syncing",
    ("POST", "/_matrix/client/v3/join/{}"): "the same as the join that is listed",
    ("POST", "/_matrix/client/v3/publicRooms"): "for anybody as GET, where the operator does not close it",
    ("POST", _LOGOUT): "ends what they began",
    ("POST", _LOGOUT + "/all"): "ends what they began",
    ("GET", "/_matrix/client/v3/events/{}"): "an older form of the event that is listed",
    ("GET", "/_matrix/client/v1/room_summary/{}"): "for anybody, token or not",
}
"""Each with its reason."""
