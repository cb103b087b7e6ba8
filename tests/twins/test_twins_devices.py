"""What ends with a device, seen by others."""

from typing import Any
from urllib.parse import quote

import pytest

from storage.log.catalog import ACCOUNT_DATA, ACCOUNT_DATA_POSITIONS, INBOX, PRESENCE, TRANSACTIONS
from storage.log.keys import after_prefix, part
from tests.fakes.homeservers import PASSWORD, Homes, Person, Site, settle
from tests.fakes.internet import Internet


def test_a_device_that_is_logged_out_is_present_no_more(homes: Homes) -> None:
    internet = Internet(1)
    site = homes.site(internet, "a.example")
    alice, bob = homes.person(site, "alice"), homes.person(site, "bob")
    room = alice.ask("POST", "/createRoom", {"preset": "public_chat"})["room_id"]
    bob.ask("POST", f"/join/{quote(room)}", {})
    identifier = {"type": "m.id.user", "user": "alice"}
    login = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
    phone = Person(site, "alice", alice.ask("POST", "/login", login)["access_token"])

    def presence() -> str:
        state: str = bob.ask("GET", f"/presence/{quote(alice.user_id)}/status")["presence"]
        return state

    phone.ask("GET", "/sync")
    assert presence() == "online"
    phone.ask("POST", "/logout", {})
    assert presence() == "offline"


def test_i01_a_status_message_and_the_last_activity_survive_a_kill(homes: Homes) -> None:
    internet = Internet(1)
    site = homes.site(internet, "a.example")
    alice, bob = homes.person(site, "alice"), homes.person(site, "bob")
    status = f"/presence/{quote(alice.user_id)}/status"
    bob.ask("GET", "/sync")
    alice.ask("PUT", status, {"presence": "online", "status_msg": "out for tea"})
    site.kill()
    internet.clock.advance(600)
    site.start()
    kept = alice.ask("GET", status)
    assert (kept["presence"], kept["status_msg"]) == ("offline", "out for tea")
    assert 600_000 <= kept["last_active_ago"] < 700_000
    # Bob only synced: that is written down within a minute, or when the server ends.
    alice.ask("GET", "/sync")
    internet.clock.advance(61)
    internet.clock.advance(1)
    site.kill()
    site.start()
    assert 60_000 <= alice.ask("GET", status)["last_active_ago"] < 120_000
    bob.ask("GET", "/sync")
    site.stop()
    internet.clock.advance(30)
    site.start()
    assert 30_000 <= bob.ask("GET", f"/presence/{quote(bob.user_id)}/status")["last_active_ago"] < 60_000
    alice.ask("PUT", status, {"presence": "unavailable"})
    site.kill()
    site.start()
    assert "status_msg" not in alice.ask("GET", status)


@pytest.mark.parametrize("erase", [True, False])
def test_a_deactivated_account_leaves_nothing_private(homes: Homes, erase: bool) -> None:
    """Nobody can log in any more: what only the owner's clients read is gone, from both stores."""
    internet = Internet(1)
    site = homes.site(internet, "a.example")
    # Accounts outlive a test: these are nobody else's.
    name = f"leaver{erase}".lower()
    alice, bob = homes.person(site, name), homes.person(site, f"stayer{erase}".lower())
    room = quote(alice.ask("POST", "/createRoom", {"preset": "public_chat"})["room_id"])
    bob.ask("POST", f"/join/{room}", {})

    def fill(person: Person, other: Person) -> None:
        mine = f"/user/{quote(person.user_id)}"
        person.ask("PUT", f"{mine}/account_data/m.x", {"a": 1})
        person.ask("PUT", f"{mine}/rooms/{room}/account_data/m.x", {"a": 1})
        person.ask("PUT", f"{mine}/rooms/{room}/tags/m.favourite", {"order": 0.5})
        person.ask("PUT", "/pushrules/global/room/" + room, {"actions": []})
        person.ask("POST", f"{mine}/filter", {"room": {"timeline": {"limit": 5}}})
        person.ask("POST", f"{mine}/openid/request_token", {})
        person.ask("PUT", f"/presence/{quote(person.user_id)}/status", {"presence": "online", "status_msg": "tea"})
        version = person.ask("POST", "/room_keys/version", {"algorithm": "m.x", "auth_data": {"public_key": "x"}})["version"]
        session = {"first_message_index": 0, "forwarded_count": 0, "is_verified": True, "session_data": {"x": "y"}}
        person.ask("PUT", f"/room_keys/keys/{room}/s?version={version}", session)
        messages = {other.user_id: {"*": {"x": 1}}}
        person.ask("PUT", f"/sendToDevice/m.x/{person.new_transaction()}", {"messages": messages})

    fill(alice, bob)
    fill(bob, alice)
    for user in (alice, bob):
        for table, columns in (("cross_signing_keys", "'master', 'k', '{}'"), ("signatures", "'k', '@c:x', 'k', 's'")):
            run(site, f"INSERT INTO {table} VALUES ('{user.user_id}', {columns})")
    site.kill()
    site.start()
    auth = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": name}, "password": PASSWORD}
    alice.ask("POST", "/account/deactivate", {"auth": auth, "erase": erase})
    for _ in range(50):  # to the outbox, to the log, out of the room
        internet.clock.advance(0.1)
    kept = left_by(site, bob.user_id)
    assert all(kept.values()), kept
    assert not any(left_by(site, alice.user_id).values())
    internet.clock.advance(100)
    site.kill()
    site.start()
    assert not any(left_by(site, alice.user_id).values())


def run(site: Site, sql: str) -> list[Any]:
    """Rows of one statement on the site's database."""

    def work(cur: Any) -> list[Any]:
        cur.execute(sql)
        return list(cur.fetchall()) if cur.description else []

    rows: list[Any] = site.internet.run(site.services.database.run(work))
    return rows


def left_by(site: Site, user_id: str) -> dict[str, int]:
    """How many rows each table has of a user."""
    left = {}
    for table in ("filters", "openid_tokens", "key_backup_versions", "key_backup_sessions", "cross_signing_keys", "devices"):
        left[table] = len(run(site, f"SELECT 1 FROM {table} WHERE user_id = '{user_id}'"))
    left["signatures"] = len(run(site, f"SELECT 1 FROM signatures WHERE target_user_id = '{user_id}'"))
    prefix = part(user_id)
    with site.services.log.snapshot() as snapshot:
        for kept in (ACCOUNT_DATA, ACCOUNT_DATA_POSITIONS, INBOX, PRESENCE, TRANSACTIONS):
            left[kept.name] = len(list(snapshot.range(kept, prefix, after_prefix(prefix))))
    return left


def test_who_was_asked_about_before_a_join_is_known_as_a_member_after_it(homes: Homes) -> None:
    internet = Internet(1)
    a, b = (homes.site(internet, name) for name in ("a.example", "b.example"))
    alice, bob = homes.person(a, "alice"), homes.person(b, "bob")
    room = bob.ask("POST", "/createRoom", {"preset": "public_chat"})["room_id"]
    assert not a.services.memberships.share_room(bob.user_id, alice.user_id)
    alice.ask("POST", f"/join/{quote(room)}?server_name=b.example", {})
    settle(internet, [a, b])
    assert a.services.memberships.share_room(bob.user_id, alice.user_id)
    token = alice.ask("GET", "/sync")["next_batch"]
    bob.ask("PUT", f"/devices/{bob.ask('GET', '/account/whoami')['device_id']}", {"display_name": "Phone"})
    settle(internet, [a, b])
    assert alice.ask("GET", f"/sync?since={token}")["device_lists"]["changed"] == [bob.user_id]
