"""Routes of ours that the specification's OpenAPI files do not have, each with its reason."""

_PUSH_RULES = "/_matrix/client/v3/pushrules/"
_METHODS = ("GET", "PUT", "DELETE")

_OPERATOR = "/_folkmoot/operator/v1"
_ROOM = "/_synapse/admin/v2/rooms/{roomId}"
_BLOCK = "/_synapse/admin/v1/rooms/{roomId}/block"

EXTENSIONS = {
    **{
        (method, _OPERATOR + path): "for the operator's commands, over the socket in the data directory alone"
        for method, path in (
            ("GET", "/peers"), ("GET", "/peers/{server}"), ("POST", "/peers/{server}/retry"), ("DELETE", "/pins/{server}"),
            ("DELETE", "/rooms/{roomId}"), ("GET", "/rooms/{roomId}/deletion"), ("PUT", "/rooms/{roomId}/block"),
            ("DELETE", "/rooms/{roomId}/block"), ("GET", "/blocked_rooms"),
        )
    },
    **dict.fromkeys(
        (
            ("DELETE", _ROOM), ("GET", f"{_ROOM}/delete_status"), ("GET", "/_synapse/admin/v2/rooms/delete_status/{deleteId}"),
            ("GET", _BLOCK), ("PUT", _BLOCK),
        ),
        "deleting and blocking rooms, as tools for Synapse know it",
    ),
    ("GET", "/_synapse/admin/v1/register"): "shared-secret registration, as scripts know it",
    ("POST", "/_synapse/admin/v1/register"): "shared-secret registration, as scripts know it",
    ("GET", "/_matrix/client/v3/auth/{authType}/fallback/web"): "in the specification's prose",
    ("POST", "/_matrix/client/v3/auth/{authType}/fallback/web"): "the form of the page above",
    ("GET", "/_matrix/static/client/login/"): "in the specification's prose",
    ("GET", _PUSH_RULES + "global/{kind}/"): "one kind of push rules, from r0",
    **{
        (method, _PUSH_RULES + path): "with a scope or kind that does not exist, which until v1.9 was a parameter"
        for path in ("", "global/", "global/{kind}/") for method in ("PUT", "DELETE")
    },
    **{
        (method, _PUSH_RULES + "{scope}" + path): "as above"
        for path in ("", "/", "/{kind}", "/{kind}/", "/{kind}/{ruleId}", "/{kind}/{ruleId}/{attribute}")
        for method in _METHODS
    },
    ("POST", "/_matrix/client/v3/keys/upload/{deviceId}"): "the old form of /keys/upload",
    ("POST", "/_matrix/client/v3/rooms/{roomId}/redact/{eventId}"): "without transaction id, from r0",
    ("POST", "/_matrix/client/v3/rooms/{roomId}/send/{eventType}"): "without transaction id, from r0",
    ("PUT", "/_matrix/client/v3/rooms/{roomId}/state/{eventType}"): "empty state key, in the prose",
    ("GET", "/_matrix/client/v3/rooms/{roomId}/state/{eventType}"): "empty state key, in the prose",
}
