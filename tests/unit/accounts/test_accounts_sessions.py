"""Register, log in, be known, log out."""

from typing import Any

from pytest_twisted import ensureDeferred

from tests.fakes.accounts import AccountServer

V3 = "/_matrix/client/v3"


@ensureDeferred
async def test_register_login_whoami_logout(server: AccountServer) -> None:
    alice = await server.register("Alice", device_id="PHONE")
    assert alice["user_id"] == "@alice:example.org"
    assert alice["device_id"] == "PHONE"
    status, body = await server.whoami(alice["access_token"])
    assert (status, body) == (200, {"user_id": "@alice:example.org", "is_guest": False, "device_id": "PHONE"})

    status, second = await server.login("alice")
    assert status == 200 and second["device_id"] != "PHONE"
    assert "access_token" in second
    status, _ = await server.client.request("POST", f"{V3}/logout", token=second["access_token"])
    assert status == 200
    assert (await server.whoami(second["access_token"]))[0] == 401
    assert (await server.whoami(alice["access_token"]))[0] == 200


@ensureDeferred
async def test_b02_logout_all_ends_every_session_and_tells_observers(server: AccountServer) -> None:
    first = await server.register("alice", device_id="A")
    _, second = await server.login("alice", device_id="B")
    for token in (first["access_token"], second["access_token"]):
        assert (await server.whoami(token))[0] == 200
    ended: list[Any] = []
    server.accounts.authenticator.on_revoked.append(lambda user, device, token: ended.append((user, device)))
    deleted: list[Any] = []
    server.accounts.devices.on_deleted.append(lambda user, device: deleted.append(device))
    status, _ = await server.client.request("POST", f"{V3}/logout/all", {}, token=first["access_token"])
    assert status == 200
    for token in (first["access_token"], second["access_token"]):
        status, body = await server.whoami(token)
        assert status == 401 and body["errcode"] == "M_UNKNOWN_TOKEN" and body["soft_logout"] is False
    assert sorted(ended) == [("@alice:example.org", "A"), ("@alice:example.org", "B")]
    assert sorted(deleted) == ["A", "B"]
