"""Passwords, devices, deactivation, refresh, profiles and the rest of the account endpoints."""

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from homeserver.accounts.first_account import first_account_token
from storage.tables import outbox
from tests.fakes.accounts import AccountServer

V3 = "/_matrix/client/v3"
V1 = "/_matrix/client/v1"
MakeServer = Callable[..., AccountServer]


def password_auth(user: str, password: str = "correct horse", **more: Any) -> dict[str, Any]:
    identifier = {"type": "m.id.user", "user": user}
    return {"type": "m.login.password", "identifier": identifier, "password": password, **more}


@pytest.mark.parametrize(
    "name",
    [
        "a!",
        'a"',
        "a:",
        "a?",
        "a\\",
        "a@",
        "a[",
        "a{",
        "a|",
        "£",
        "é",
        "a\n",
        "a'",
        "",
        "_x",
        "123",
        "x" * 250,
    ],
)
@ensureDeferred
async def test_a12_names_outside_the_grammar_are_refused(server: AccountServer, name: str) -> None:
    body = {"username": name, "password": "correct horse", "auth": {"type": "m.login.dummy"}}
    status, answer = await server.client.request("POST", f"{V3}/register", body)
    assert (status, answer["errcode"]) == (400, "M_INVALID_USERNAME")


@ensureDeferred
async def test_a_taken_name_is_refused_before_and_after_authentication(server: AccountServer) -> None:
    await server.register("alice")
    for body in ({"username": "alice"}, {"username": "ALICE", "auth": {"type": "m.login.dummy"}}):
        status, answer = await server.client.request("POST", f"{V3}/register", body)
        assert (status, answer["errcode"]) == (400, "M_USER_IN_USE")
    status, answer = await server.client.request(
        "GET", f"{V3}/register/available", query={"username": "alice"}
    )
    assert (status, answer["errcode"]) == (400, "M_USER_IN_USE")
    status, answer = await server.client.request("GET", f"{V3}/register/available", query={"username": "bob"})
    assert (status, answer) == (200, {"available": True})


@ensureDeferred
async def test_registration_remembers_parameters_and_repeats_its_answer(server: AccountServer) -> None:
    wanted = {"username": "alice", "password": "correct horse", "device_id": "xyzzy"}
    status, challenge = await server.client.request("POST", f"{V3}/register", wanted)
    assert status == 401 and challenge["flows"] == [{"stages": ["m.login.dummy"]}]
    auth = {"type": "m.login.dummy", "session": challenge["session"]}
    status, made = await server.client.request("POST", f"{V3}/register", {"auth": auth})
    assert status == 200 and made["user_id"] == "@alice:example.org" and made["device_id"] == "xyzzy"
    status, again = await server.client.request("POST", f"{V3}/register", {**wanted, "auth": auth})
    assert status == 200 and again["user_id"] == made["user_id"]
    assert (await server.login("alice"))[0] == 200


@ensureDeferred
async def test_b03_a_registration_session_makes_one_account_for_its_own_request(
    server: AccountServer,
) -> None:
    _, challenge = await server.client.request(
        "POST", f"{V3}/register", {"username": "alice", "password": "correct horse"}
    )
    auth = {"type": "m.login.dummy", "session": challenge["session"]}
    changed = {"username": "mallory", "password": "correct horse", "auth": auth}
    assert (await server.client.request("POST", f"{V3}/register", changed))[0] == 403
    assert (await server.client.request("POST", f"{V3}/register", {"auth": auth}))[0] == 200
    status, _ = await server.client.request("POST", f"{V3}/register", {"auth": auth})
    assert status == 400  # used, and the request does not show that it is the same


@ensureDeferred
async def test_b11_closed_registration_is_closed_everywhere(make_server: MakeServer) -> None:
    server = make_server(enable_registration=False, allow_guest_access=False)
    for path in (f"{V3}/register", "/_matrix/client/r0/register", f"{V3}/register?kind=guest"):
        status, answer = await server.client.request("POST", path, {"auth": {"type": "m.login.dummy"}})
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), path
    assert (await server.client.request("GET", "/_synapse/admin/v1/register"))[0] == 404


@ensureDeferred
async def test_the_first_account_token_makes_one_administrator(make_server: MakeServer) -> None:
    server = make_server(enable_registration=False)
    token = await first_account_token(server.database, server.now_ms)
    assert token is not None
    wrong = {"type": "m.login.registration_token", "token": "guess"}
    body = {"username": "root", "password": "correct horse"}
    status, answer = await server.client.request("POST", f"{V3}/register", {**body, "auth": wrong})
    assert (status, answer["errcode"], answer["completed"]) == (401, "M_FORBIDDEN", [])
    auth = {"type": "m.login.registration_token", "token": token}
    status, answer = await server.client.request("POST", f"{V3}/register", {**body, "auth": auth})
    assert status == 200
    sender = await server.accounts.authenticator.authenticate(answer["access_token"], "", "")  # type: ignore[misc]
    assert sender.is_admin
    status, _ = await server.client.request(
        "POST", f"{V3}/register", {**body, "username": "two", "auth": auth}
    )
    assert status == 403
    assert await first_account_token(server.database, server.now_ms) is None


@ensureDeferred
async def test_shared_secret_registration_needs_a_fresh_nonce_and_the_secret(make_server: MakeServer) -> None:
    server = make_server(enable_registration=False, registration_shared_secret="reg_secret")
    path = "/_synapse/admin/v1/register"

    async def attempt(secret: str, nonce: str | None = None) -> tuple[int, Any, str]:
        nonce = nonce or (await server.client.request("GET", path))[1]["nonce"]
        message = "\0".join([nonce, "Root", "pass", "admin"]).encode()
        mac = hmac.new(secret.encode(), message, hashlib.sha1).hexdigest()
        body = {"nonce": nonce, "username": "Root", "password": "pass", "admin": True, "mac": mac}
        return (*await server.client.request("POST", path, body), nonce)

    assert (await attempt("wrong"))[0] == 403
    status, answer, nonce = await attempt("reg_secret")
    assert status == 200 and answer["user_id"] == "@root:example.org" and answer["access_token"]
    assert (await attempt("reg_secret", nonce))[0] == 400


@ensureDeferred
async def test_guests_may_not_do_what_users_do(server: AccountServer) -> None:
    status, guest = await server.client.request("POST", f"{V3}/register?kind=guest", {})
    assert status == 200
    assert (await server.whoami(guest["access_token"]))[1]["is_guest"] is True
    status, answer = await server.client.request(
        "POST", f"{V1}/login/get_token", {}, token=guest["access_token"]
    )
    assert (status, answer["errcode"]) == (403, "M_GUEST_ACCESS_FORBIDDEN")
    path = f"{V3}/profile/{guest['user_id']}/avatar_url"
    for method, body in (("PUT", {"avatar_url": "mxc://example.org/a"}), ("DELETE", None)):
        status, answer = await server.client.request(method, path, body, token=guest["access_token"])
        assert (status, answer["errcode"]) == (403, "M_GUEST_ACCESS_FORBIDDEN")


@ensureDeferred
async def test_a_guest_becomes_a_user_of_the_same_name(server: AccountServer) -> None:
    """Client-Server API, "Guest Access": the ordinary flow, with the guest's token and name."""
    upgraded: list[str] = []

    async def note(user_id: str) -> None:
        upgraded.append(user_id)

    server.accounts.registration.on_upgraded.append(note)
    _, guest = await server.client.request("POST", f"{V3}/register?kind=guest", {})
    _, other = await server.client.request("POST", f"{V3}/register?kind=guest", {})
    name = guest["user_id"][1:].split(":")[0]
    whole = {"username": name, "password": "correct horse", "guest_access_token": guest["access_token"]}
    alice = await server.register("alice")
    for wrong in (
        whole | {"guest_access_token": other["access_token"]},
        whole | {"guest_access_token": "nonsense"},
        whole | {"username": "alice", "guest_access_token": alice["access_token"]},
        {key: value for key, value in whole.items() if key != "guest_access_token"},
    ):
        status, answer = await server.client.request("POST", f"{V3}/register", wrong)
        assert (status, answer["errcode"]) in ((403, "M_FORBIDDEN"), (400, "M_INVALID_USERNAME"))
    unnamed = {key: value for key, value in whole.items() if key != "username"}
    status, answer = await server.client.request("POST", f"{V3}/register", unnamed)
    assert (status, answer["errcode"]) == (400, "M_MISSING_PARAM")
    assert upgraded == [] and (await server.whoami(guest["access_token"]))[1]["is_guest"] is True

    status, challenge = await server.client.request("POST", f"{V3}/register", whole)
    assert status == 401
    auth = {"type": "m.login.dummy", "session": challenge["session"]}
    status, made = await server.client.request("POST", f"{V3}/register", {"auth": auth})
    assert status == 200 and made["user_id"] == guest["user_id"] and upgraded == [guest["user_id"]]
    assert (await server.whoami(made["access_token"]))[1]["is_guest"] is False
    assert (await server.whoami(guest["access_token"]))[0] == 401
    _, found = await server.client.request("GET", f"{V3}/devices", token=made["access_token"])
    assert [device["device_id"] for device in found["devices"]] == [made["device_id"]]
    assert (await server.login(name))[0] == 200
    status, _ = await server.client.request("POST", f"{V3}/register", whole)
    assert status == 403  # nobody is a guest of that name any more


@ensureDeferred
async def test_a_guest_who_becomes_a_user_keeps_device_and_display_name(server: AccountServer) -> None:
    _, guest = await server.client.request("POST", f"{V3}/register?kind=guest", {})
    name, token = guest["user_id"][1:].split(":")[0], guest["access_token"]
    path = f"{V3}/profile/{guest['user_id']}"
    assert (await server.client.request("PUT", f"{path}/displayname", {"displayname": "Gus"}, token=token))[0] == 200
    fields = {"guest_access_token": token, "device_id": guest["device_id"]}
    made = await server.register(name, **fields)
    assert made["device_id"] == guest["device_id"] and made["access_token"] != token
    assert (await server.client.request("GET", path))[1] == {"displayname": "Gus"}


@ensureDeferred
async def test_wrong_logins_are_refused_alike(server: AccountServer) -> None:
    await server.register("alice")
    answers = [
        await server.login("alice", "wrong password"),
        await server.login("nobody"),
        await server.login("@alice:elsewhere"),
    ]
    assert {(status, body["errcode"], body["error"]) for status, body in answers} == {
        (403, "M_FORBIDDEN", "Wrong user name or password")
    }
    status, _ = await server.client.request(
        "POST", f"{V3}/login", {"type": "m.login.password", "user": "alice", "password": "correct horse"}
    )
    assert status == 200


@ensureDeferred
async def test_login_token_works_once(server: AccountServer) -> None:
    alice = await server.register("alice")
    path = f"{V1}/login/get_token"
    assert (await server.client.request("POST", path, {}, token=alice["access_token"]))[0] == 401
    status, made = await server.client.request(
        "POST", path, {"auth": password_auth("alice")}, token=alice["access_token"]
    )
    assert status == 200 and made["expires_in_ms"] == 120_000
    body = {"type": "m.login.token", "token": made["login_token"]}
    assert (await server.client.request("POST", f"{V3}/login", body))[1]["user_id"] == "@alice:example.org"
    assert (await server.client.request("POST", f"{V3}/login", body))[0] == 403


@ensureDeferred
async def test_refresh_rotates_and_the_old_token_lives_until_the_new_one_is_used(
    server: AccountServer,
) -> None:
    alice = await server.register("alice", refresh_token=True)
    assert alice["expires_in_ms"] == 300_000

    async def refresh(token: str) -> tuple[int, dict[str, Any]]:
        return await server.client.request("POST", f"{V3}/refresh", {"refresh_token": token})

    _, lost = await refresh(alice["refresh_token"])
    status, second = await refresh(alice["refresh_token"])  # the first answer never arrived
    assert status == 200
    assert (await server.whoami(lost["access_token"]))[0] == 401
    assert (await server.whoami(alice["access_token"]))[0] == 200
    assert (await server.whoami(second["access_token"]))[0] == 200
    assert (await refresh(alice["refresh_token"]))[0] == 401
    assert (await server.whoami(alice["access_token"]))[0] == 401
    server.clock_ms += 300_001
    status, body = await server.whoami(second["access_token"])
    assert (status, body["errcode"], body["soft_logout"]) == (401, "M_UNKNOWN_TOKEN", True)
    status, third = await refresh(second["refresh_token"])
    assert status == 200 and (await server.whoami(third["access_token"]))[0] == 200


@ensureDeferred
async def test_b02_password_change_ends_other_sessions_and_login_tokens(server: AccountServer) -> None:
    alice = await server.register("alice")
    _, other = await server.login("alice")
    assert (await server.whoami(other["access_token"]))[0] == 200
    _, made = await server.client.request(
        "POST", f"{V1}/login/get_token", {"auth": password_auth("alice")}, token=alice["access_token"]
    )
    body = {"new_password": "another horse", "auth": password_auth("alice")}
    assert (await server.client.request("POST", f"{V3}/account/password", body, token=alice["access_token"]))[
        0
    ] == 200
    assert (await server.whoami(alice["access_token"]))[0] == 200
    assert (await server.whoami(other["access_token"]))[0] == 401
    assert (await server.login("alice"))[0] == 403
    assert (
        await server.client.request(
            "POST", f"{V3}/login", {"type": "m.login.token", "token": made["login_token"]}
        )
    )[0] == 403
    _status, kept = await server.login("alice", "another horse")
    body = {
        "new_password": "third horse!",
        "logout_devices": False,
        "auth": password_auth("alice", "another horse"),
    }
    assert (await server.client.request("POST", f"{V3}/account/password", body, token=alice["access_token"]))[
        0
    ] == 200
    assert (await server.whoami(kept["access_token"]))[0] == 200


@ensureDeferred
async def test_b02_deactivation_ends_every_way_in(server: AccountServer) -> None:
    alice = await server.register("alice", refresh_token=True)
    token = alice["access_token"]
    assert (await server.whoami(token))[0] == 200
    wrong = {"auth": password_auth("alice", "wrong password")}
    status, answer = await server.client.request("POST", f"{V3}/account/deactivate", wrong, token=token)
    assert (
        status == 401
        and answer["errcode"] == "M_FORBIDDEN"
        and {"params", "completed", "flows"} <= set(answer)
    )
    _, pending = await server.client.request("DELETE", f"{V3}/devices/X", {}, token=token)
    status, answer = await server.client.request(
        "POST", f"{V3}/account/deactivate", {"auth": password_auth("alice"), "erase": True}, token=token
    )
    assert (status, answer) == (200, {"id_server_unbind_result": "success"})
    assert (await server.whoami(token))[0] == 401
    assert (await server.client.request("POST", f"{V3}/refresh", {"refresh_token": alice["refresh_token"]}))[
        0
    ] == 401
    assert (await server.login("alice"))[1]["errcode"] == "M_USER_DEACTIVATED"
    assert server.accounts.interactive_auth.sessions.find(pending["session"]) is None
    assert (await server.client.request("GET", f"{V3}/profile/@alice:example.org"))[0] == 404
    status, answer = await server.client.request("POST", f"{V3}/register", {"username": "alice"})
    assert answer["errcode"] == "M_USER_IN_USE"
    kinds = {row.kind for row in await server.database.run(lambda cur: outbox.pending(cur, 100))}
    assert {"account_deactivated", "device_deleted"} <= kinds


@ensureDeferred
async def test_devices_are_listed_renamed_and_deleted(server: AccountServer) -> None:
    alice = await server.register("alice", device_id="A", initial_device_display_name="phone")
    bob = await server.register("bob")
    _, second = await server.login("alice", device_id="B")
    token = alice["access_token"]
    status, body = await server.client.request(
        "GET", f"{V3}/devices", token=token, headers={"User-Agent": "test"}
    )
    devices = {device["device_id"]: device for device in body["devices"]}
    assert (
        devices["A"]["display_name"] == "phone"
        and devices["A"]["last_seen_ip"] == "192.0.2.1"
        and "B" in devices
    )
    assert (await server.client.request("PUT", f"{V3}/devices/B", {"display_name": "tab"}, token=token))[
        0
    ] == 200
    assert (await server.client.request("GET", f"{V3}/devices/B", token=token))[1]["display_name"] == "tab"
    assert (await server.client.request("GET", f"{V3}/devices/B", token=bob["access_token"]))[0] == 404
    assert (await server.client.request("PUT", f"{V3}/devices/C", {"display_name": "x"}, token=token))[
        0
    ] == 404
    assert (await server.client.request("DELETE", f"{V3}/devices/B", token=token))[0] == 401
    other = {"auth": password_auth("bob")}
    assert (await server.client.request("DELETE", f"{V3}/devices/B", other, token=token))[0] == 403
    own = {"auth": password_auth("alice")}
    assert (await server.client.request("DELETE", f"{V3}/devices/B", own, token=token))[0] == 200
    assert (await server.whoami(second["access_token"]))[0] == 401
    status, _ = await server.client.request(
        "POST", f"{V3}/delete_devices", {"devices": ["A"], **own}, token=token
    )
    assert status == 200 and (await server.whoami(token))[0] == 401


@ensureDeferred
async def test_b03_a_session_is_good_for_one_operation_of_one_user(server: AccountServer) -> None:
    alice, bob = await server.register("alice"), await server.register("bob")
    _, challenge = await server.client.request("DELETE", f"{V3}/devices/A", {}, token=alice["access_token"])
    auth = password_auth("alice", session=challenge["session"])
    for path, token in ((f"{V3}/devices/B", alice["access_token"]), (f"{V3}/devices/A", bob["access_token"])):
        assert (await server.client.request("DELETE", path, {"auth": auth}, token=token))[0] == 403
    assert (
        await server.client.request("DELETE", f"{V3}/devices/A", {"auth": auth}, token=alice["access_token"])
    )[0] == 200
    assert (
        await server.client.request("DELETE", f"{V3}/devices/A", {"auth": auth}, token=alice["access_token"])
    )[0] == 400


@pytest.mark.parametrize(
    "stage", ["m.login.dummy", "m.login.registration_token", "m.login.terms", "m.made.up"]
)
@ensureDeferred
async def test_b04_a_stage_that_is_not_offered_does_not_count(server: AccountServer, stage: str) -> None:
    alice = await server.register("alice", device_id="A")
    auth = {"type": stage, "token": "x", "password": "correct horse", "completed": ["m.login.password"]}
    status, body = await server.client.request(
        "DELETE", f"{V3}/devices/A", {"auth": auth}, token=alice["access_token"]
    )
    assert status == 401 and body["completed"] == []
    assert (await server.whoami(alice["access_token"]))[0] == 200


@ensureDeferred
async def test_b06_b08_tokens_and_passwords_are_not_stored_in_clear(server: AccountServer) -> None:
    alice = await server.register("alice", "a planted password", refresh_token=True)
    dump = ""
    for table in ("users", "devices", "access_tokens", "refresh_tokens", "profiles", "outbox"):
        dump += str(await server.database.fetch(f"SELECT {table}::text FROM {table}"))
    assert "@alice:example.org" in dump
    for secret in (alice["access_token"], alice["refresh_token"], "a planted password"):
        assert secret not in dump and secret.encode().hex() not in dump


@ensureDeferred
async def test_profiles_hold_any_field_within_64_kib(server: AccountServer) -> None:
    alice, bob = await server.register("alice"), await server.register("bob")
    path, token = f"{V3}/profile/@alice:example.org", alice["access_token"]
    changes: list[Any] = []

    class Observer:
        async def on_profile_change(self, user_id: str, profile: dict[str, Any]) -> None:
            changes.append((user_id, profile.get("displayname")))

    server.accounts.profiles.observer = Observer()
    assert (await server.client.request("GET", path))[1] == {"displayname": "alice"}
    for key, value in (
        ("displayname", "A\u0000l"),
        ("m.tz", "Europe/London"),
        ("org.x", {"deep": [1, None]}),
    ):
        assert (await server.client.request("PUT", f"{path}/{key}", {key: value}, token=token))[0] == 200
        assert (await server.client.request("GET", f"{path}/{key}"))[1] == {key: value}
    assert changes == [("@alice:example.org", "A\u0000l")]
    for key, body, errcode in (
        ("org.y", {"org.x": 1}, "M_MISSING_PARAM"),
        ("k" * 256, {"k" * 256: 1}, "M_KEY_TOO_LARGE"),
        ("org.y", {"org.y": "x" * 65_536}, "M_PROFILE_TOO_LARGE"),
        ("displayname", {"displayname": 3}, "M_BAD_JSON"),
    ):
        status, answer = await server.client.request("PUT", f"{path}/{key}", body, token=token)
        assert (status, answer["errcode"]) == (400, errcode)
    assert (await server.client.request("PUT", f"{path}/m.tz", {"m.tz": "x"}, token=bob["access_token"]))[
        0
    ] == 403
    assert (await server.client.request("DELETE", f"{path}/m.tz", token=token))[0] == 200
    assert (await server.client.request("GET", f"{path}/m.tz"))[0] == 404


@ensureDeferred
async def test_locked_accounts_are_let_in_again_when_unlocked(make_server: MakeServer) -> None:
    server = make_server(enable_registration=True)
    token = await first_account_token(server.database, server.now_ms)
    auth = {"type": "m.login.registration_token", "token": token}
    _, root = await server.client.request(
        "POST", f"{V3}/register", {"username": "root", "password": "correct horse", "auth": auth}
    )
    alice = await server.register("alice")
    _, phone = await server.login("alice")
    assert (await server.whoami(phone["access_token"]))[0] == 200
    cut: list[str] = []
    server.accounts.authenticator.on_locked.append(cut.append)
    path = f"{V1}/admin/lock/@alice:example.org"
    assert (await server.client.request("PUT", path, {"locked": True}, token=alice["access_token"]))[0] == 403
    assert (await server.client.request("PUT", path, {"locked": True}, token=root["access_token"]))[1] == {
        "locked": True
    }
    status, body = await server.whoami(alice["access_token"])
    assert (status, body["errcode"], body["soft_logout"]) == (401, "M_USER_LOCKED", True)
    assert cut == ["@alice:example.org"]
    # Logging out is the one thing that a locked account may do.
    assert (await server.client.request("POST", f"{V3}/logout", {}, token=phone["access_token"]))[0] == 200
    assert (await server.whoami(phone["access_token"]))[1]["errcode"] == "M_UNKNOWN_TOKEN"
    assert (await server.client.request("PUT", path, {"locked": False}, token=root["access_token"]))[0] == 200
    assert (await server.whoami(alice["access_token"]))[0] == 200
    status, body = await server.client.request(
        "GET", f"{V3}/admin/whois/@alice:example.org", token=root["access_token"]
    )
    assert (
        status == 200
        and next(iter(body["devices"].values()))["sessions"][0]["connections"][0]["ip"] == "192.0.2.1"
    )


@ensureDeferred
async def test_fallback_page_completes_the_terms(make_server: MakeServer) -> None:
    from config.schema import Terms

    server = make_server(terms=Terms(name="Rules <b>", url="https://example.org/rules"))
    wanted = {"username": "alice", "password": "correct horse"}
    _status, challenge = await server.client.request("POST", f"{V3}/register", wanted)
    assert challenge["flows"] == [{"stages": ["m.login.terms", "m.login.dummy"]}]
    assert (
        challenge["params"]["m.login.terms"]["policies"]["privacy_policy"]["en"]["url"]
        == "https://example.org/rules"
    )
    page = f"{V3}/auth/m.login.terms/fallback/web"
    shown = await server.client.answer("GET", page, query={"session": challenge["session"]})
    assert (
        shown.status == 200
        and b"Rules &lt;b&gt;" in shown.encoded()
        and shown.content_type.startswith("text/html")
    )
    done = await server.client.answer("POST", page, f"session={challenge['session']}".encode())
    assert done.status == 200 and b"onAuthDone" in done.encoded()
    auth = {"type": "m.login.dummy", "session": challenge["session"]}
    assert (await server.client.request("POST", f"{V3}/register", {**wanted, "auth": auth}))[0] == 200
    assert (await server.client.request("POST", page, f"session={challenge['session']}".encode()))[0] == 400


@ensureDeferred
async def test_discovery_and_small_endpoints(make_server: MakeServer) -> None:
    server = make_server(public_baseurl="https://hs.example.org/")
    alice = await server.register("alice")
    token = alice["access_token"]
    assert (await server.client.request("GET", "/.well-known/matrix/client"))[1]["m.homeserver"][
        "base_url"
    ] == "https://hs.example.org/"
    assert (await server.client.request("GET", "/.well-known/matrix/support"))[0] == 404
    _, body = await server.client.request("GET", f"{V3}/capabilities", token=token)
    assert body["capabilities"]["m.room_versions"]["default"] == "12"
    assert (await server.client.request("GET", f"{V3}/account/3pid", token=token))[1] == {"threepids": []}
    _, body = await server.client.request("POST", f"{V3}/account/3pid/email/requestToken", {"email": "a@b"})
    assert body["errcode"] == "M_THREEPID_DENIED"
    path = f"{V3}/user/@alice:example.org/openid/request_token"
    _, body = await server.client.request("POST", path, {}, token=token)
    assert body["token_type"] == "Bearer" and (await server.whoami(body["access_token"]))[0] == 401


@pytest.mark.parametrize("field", ["username", "password", "device_id", "initial_device_display_name"])
@ensureDeferred
async def test_a07_nul_characters_and_a09_wrong_types_get_400(server: AccountServer, field: str) -> None:
    for value in ("x\u0000y", 3, ["x"], {}):
        body = {
            "username": "alice",
            "password": "correct horse",
            "auth": {"type": "m.login.dummy"},
            field: value,
        }
        assert (await server.client.request("POST", f"{V3}/register", body))[0] == 400
    alice = await server.register("alice", device_id="A")
    status, _ = await server.client.request(
        "PUT", f"{V3}/devices/A", {"display_name": "a\u0000"}, token=alice["access_token"]
    )
    assert status == 400
