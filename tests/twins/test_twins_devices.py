"""What ends with a device, seen by others."""

from urllib.parse import quote

from tests.fakes.homeservers import PASSWORD, Homes, Person
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
