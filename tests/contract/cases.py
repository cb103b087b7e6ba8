"""What an operation's example request needs from the world: who asks, about what, and which answer is right.

An operation that is not in ``CASES`` is asked by alice about her room, with the specification's own example as body.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.contract.world import PASSWORD, Person, World


@dataclass
class Case:
    """One request. ``params`` fill the path; a ``body`` of None means the specification's example."""

    params: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    body: Any = None
    person: Person | None = None
    status: tuple[int, ...] = (200,)


def default_params(world: World) -> dict[str, Callable[[], str]]:
    """A value for each name of a path parameter."""
    return {
        "userId": lambda: world.alice.user_id,
        "roomId": lambda: world.room_id,
        "roomIdOrAlias": lambda: world.alias,
        "roomAlias": lambda: world.alias,
        "eventId": lambda: world.event_id,
        "eventType": lambda: "m.room.message",
        "stateKey": lambda: "",
        "txnId": lambda: world.unique("txn"),
        "type": lambda: "org.example.custom",
        "filterId": lambda: world.filter_id,
        "deviceId": lambda: world.alice.device_id,
        "receiptType": lambda: "m.read",
        "kind": lambda: "content",
        "ruleId": lambda: ".m.rule.contains_user_name",
        "keyName": lambda: "displayname",
        "tag": lambda: "u.work",
        "version": lambda: world.backup_version,
        "sessionId": lambda: "session",
        "serverName": lambda: world.server_name,
        "protocol": lambda: "irc",
        "authType": lambda: "m.login.dummy",
    }


def _push_rule(world: World) -> str:
    rule = world.unique("rule")
    body = {"pattern": "cake*lie", "actions": ["notify"]}
    world.must(world.alice, "PUT", f"/pushrules/global/content/{rule}", body)
    return rule


def _left_room(world: World) -> str:
    room_id = world.room(world.bob)
    world.must(world.bob, "POST", f"/rooms/{room_id}/leave", {})
    return room_id


def _banned_room(world: World) -> str:
    room_id = world.room(world.bob)
    world.must(world.alice, "POST", f"/rooms/{room_id}/ban", {"user_id": world.bob.user_id})
    return room_id


def _stored_keys(world: World) -> dict[str, str]:
    version = world.backup_version
    session = {"first_message_index": 1, "forwarded_count": 0, "is_verified": True, "session_data": {"a": "b"}}
    world.must(world.alice, "PUT", f"/room_keys/keys/{world.room_id}/session?version={version}", session)
    return {"version": version}


def _spare_backup(world: World) -> Case:
    person = world.person()
    body = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": "abcdefg"}}
    version = world.must(person, "POST", "/room_keys/version", body)["version"]
    return Case({"version": version}, body=body | {"version": version}, person=person)


def _spare_alias(world: World) -> str:
    alias = f"#{world.unique('spare')}:{world.server_name}"
    path = "/directory/room/" + alias.replace("#", "%23")
    world.must(world.alice, "PUT", path, {"room_id": world.room_id})
    return alias


def _tagged(world: World) -> Case:
    world.must(world.alice, "PUT", f"/user/{world.alice.user_id}/rooms/{world.room_id}/tags/u.old", {})
    return Case({"tag": "u.old"})


def _second_device(world: World) -> Case:
    identifier = {"type": "m.id.user", "user": world.alice.user_id}
    body = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
    made = world.caller.call("POST", "/_matrix/client/v3/login", body=body).body
    return Case({"deviceId": made["device_id"]}, body={"devices": [made["device_id"]]})


def _own_account_data(world: World, room: bool) -> Case:
    place = f"/rooms/{world.room_id}" if room else ""
    world.must(world.alice, "PUT", f"/user/{world.alice.user_id}{place}/account_data/org.example.kept", {"a": 1})
    return Case({"type": "org.example.kept"})


def _refresh(world: World) -> Case:
    person = world.person()
    return Case(body={"refresh_token": person.refresh_token}, person=person)


def _named(world: World) -> Case:
    world.must(world.alice, "PUT", f"/profile/{world.alice.user_id}/displayname", {"displayname": "Alice"})
    return Case()


def _topic(world: World) -> Case:
    world.must(world.alice, "PUT", f"/rooms/{world.room_id}/state/m.room.topic/", {"topic": "tea"})
    return Case({"eventType": "m.room.topic", "stateKey": ""})


CASES: dict[str, Callable[[World], Case]] = {
    "ban": lambda w: Case({"roomId": w.room(w.bob)}, body={"user_id": w.bob.user_id}),
    "unban": lambda w: Case({"roomId": _banned_room(w)}, body={"user_id": w.bob.user_id}),
    "kick": lambda w: Case({"roomId": w.room(w.bob)}, body={"user_id": w.bob.user_id, "reason": "Noise"}),
    "createRoom": lambda w: Case(body={"preset": "public_chat", "room_alias_name": w.unique("pub"), "name": "Pub"}),
    "changePassword": lambda w: Case(body={"new_password": PASSWORD + "!"}, person=w.person()),
    "checkUsernameAvailability": lambda w: Case(query={"username": w.unique("free")}),
    "claimKeys": lambda w: Case(body={"one_time_keys": {w.bob.user_id: {w.bob.device_id: "signed_curve25519"}}}),
    "deactivateAccount": lambda w: Case(body={}, person=w.person()),
    "defineFilter": lambda w: Case(),
    "deleteDevice": _second_device,
    "deleteDevices": _second_device,
    "deleteProfileField": lambda w: Case({"keyName": "avatar_url"}),
    "deletePushRule": lambda w: Case({"ruleId": _push_rule(w)}),
    "deleteRoomAlias": lambda w: Case({"roomAlias": _spare_alias(w)}),
    "deleteRoomKeyBySessionId": lambda w: Case(query=_stored_keys(w)),
    "deleteRoomKeys": lambda w: Case(query=_stored_keys(w)),
    "deleteRoomKeysByRoomId": lambda w: Case(query=_stored_keys(w)),
    "deleteRoomKeysVersion": _spare_backup,
    "deleteRoomTag": _tagged,
    "forgetRoom": lambda w: Case({"roomId": _left_room(w)}, person=w.bob),
    "generateLoginToken": lambda w: Case(body={}),
    "getAccountData": lambda w: _own_account_data(w, False),
    "getAccountDataPerRoom": lambda w: _own_account_data(w, True),
    "getAuthMetadata": lambda w: Case(status=(404,)),
    "getEventByTimestamp": lambda w: Case(query={"ts": "1", "dir": "f"}),
    "getEvents": lambda w: Case(query={"timeout": "1"}),
    "getKeysChanges": lambda w: Case(query={"from": sync_token(w), "to": sync_token(w)}),
    "getMutualRooms": lambda w: Case(query={"user_id": w.bob.user_id}),
    "getOneEvent": lambda w: Case({"eventId": w.event_id}),
    "getProfileField": _named,
    "getPushRule": lambda w: Case({"ruleId": _push_rule(w)}),
    "getPushRuleActions": lambda w: Case({"ruleId": _push_rule(w)}),
    "getRoomEvents": lambda w: Case(query={"dir": "b"}),
    "getRoomKeyBySessionId": lambda w: Case(query=_stored_keys(w)),
    "getRoomKeys": lambda w: Case(query=_stored_keys(w)),
    "getRoomKeysByRoomId": lambda w: Case(query=_stored_keys(w)),
    "getRoomKeysVersionCurrent": lambda w: Case(query=_stored_keys(w)),
    "getRoomStateWithKey": _topic,
    "getWellknown": lambda w: Case(status=(200, 404)),
    "getWellknownPolicy": lambda w: Case(status=(200, 404)),
    "getWellknownSupport": lambda w: Case(status=(200, 404)),
    "inviteUser": lambda w: Case({"roomId": w.room()}, body={"user_id": w.bob.user_id, "reason": "Welcome"}),
    "isPushRuleEnabled": lambda w: Case({"ruleId": _push_rule(w)}),
    "joinRoom": lambda w: Case(body={}, person=w.bob),
    "joinRoomById": lambda w: Case({"roomId": w.room()}, body={}, person=w.bob),
    "knockRoom": lambda w: Case({"roomIdOrAlias": _knock_room(w)}, person=w.bob),
    "leaveRoom": lambda w: Case({"roomId": w.room(w.bob)}, person=w.bob),
    "login": lambda w: Case(
        body={
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": w.alice.user_id},
            "password": PASSWORD,
        }
    ),
    "logout": lambda w: Case(person=w.person()),
    "logout_all": lambda w: Case(person=w.person()),
    "postRoomKeysVersion": lambda w: Case(person=w.person()),  # it makes alice's backup an old one
    "peekEvents": lambda w: Case(query={"timeout": "1", "room_id": w.room_id}),
    "post3PIDs": lambda w: Case(status=(400, 403)),
    "add3PID": lambda w: Case(status=(400, 403)),
    "bind3PID": lambda w: Case(status=(400, 403)),
    "requestTokenTo3PIDEmail": lambda w: Case(status=(400, 403)),
    "requestTokenTo3PIDMSISDN": lambda w: Case(status=(400, 403)),
    "requestTokenToRegisterEmail": lambda w: Case(status=(400, 403)),
    "requestTokenToRegisterMSISDN": lambda w: Case(status=(400, 403)),
    "requestTokenToResetPasswordEmail": lambda w: Case(status=(400, 403)),
    "requestTokenToResetPasswordMSISDN": lambda w: Case(status=(400, 403)),
    "putRoomKeyBySessionId": lambda w: Case(query={"version": w.backup_version}),
    "putRoomKeys": lambda w: Case(query={"version": w.backup_version}),
    "putRoomKeysByRoomId": lambda w: Case(query={"version": w.backup_version}),
    "putRoomKeysVersion": _spare_backup,
    "redactEvent": lambda w: Case({"eventId": w.message(w.room_id)}),
    "refresh": _refresh,
    "register": lambda w: Case(body={"username": w.unique("new"), "password": PASSWORD}),
    "registrationTokenValidity": lambda w: Case(query={"token": "none"}),
    "sendToDevice": lambda w: Case(body={"messages": {w.bob.user_id: {w.bob.device_id: {"a": 1}}}}),
    "setAdminLockUser": lambda w: Case({"userId": w.bob.user_id}, status=(403,)),
    "getAdminLockUser": lambda w: Case({"userId": w.bob.user_id}, status=(403,)),
    "setPushRule": lambda w: Case({"ruleId": w.unique("new")}),
    "setPushRuleActions": lambda w: Case({"ruleId": _push_rule(w)}),
    "setPushRuleEnabled": lambda w: Case({"ruleId": _push_rule(w)}),
    "setReadMarker": lambda w: Case(body={"m.fully_read": w.event_id, "m.read": w.event_id}),
    "setRoomAlias": lambda w: Case(
        {"roomAlias": f"#{w.unique('new')}:{w.server_name}"}, body={"room_id": w.room_id}
    ),
    "setRoomStateWithKey": lambda w: Case({"eventType": "m.room.member", "stateKey": w.alice.user_id}),
    "uploadCrossSigningKeys": lambda w: Case(status=(400,)),
    "uploadCrossSigningSignatures": lambda w: Case(),
    "uploadKeys": lambda w: Case(body={}),
    "upgradeRoom": lambda w: Case({"roomId": w.room()}, body={"new_version": "11"}),
}
"""By operationId."""


def sync_token(world: World) -> str:
    """Where alice's sync is now."""
    return str(world.must(world.alice, "GET", "/sync?timeout=0")["next_batch"])


def _knock_room(world: World) -> str:
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    return world.room(preset="private_chat", initial_state=[rules])
