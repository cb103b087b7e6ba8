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
