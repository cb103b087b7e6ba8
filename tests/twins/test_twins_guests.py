"""Guests in rooms that span servers: each server answers for its own."""

from urllib.parse import quote

import pytest

from tests.fakes.homeservers import Homes, Person, Refused, Site, settle
from tests.fakes.internet import Internet

GUEST_ACCESS = "/rooms/{}/state/m.room.guest_access/"


@pytest.fixture
def sites(homes: Homes) -> tuple[Internet, Site, Site]:
    internet = Internet(1)
    return internet, homes.site(internet, "a.example"), homes.site(internet, "b.example")


def guest_of(site: Site) -> Person:
    answer = Person(site, "nobody", "none").ask("POST", "/register?kind=guest", {})
    name = answer["user_id"][1:].split(":")[0]
    return Person(site, name, answer["access_token"])


def test_guests_leave_when_somebody_elsewhere_no_longer_lets_them_in(
    homes: Homes, sites: tuple[Internet, Site, Site]
) -> None:
    internet, a, b = sites
    alice, guest = homes.person(a, "alice"), guest_of(b)
    room = alice.ask("POST", "/createRoom", {"preset": "public_chat"})["room_id"]
    alice.ask("PUT", GUEST_ACCESS.format(quote(room)), {"guest_access": "can_join"})
    guest.ask("POST", f"/join/{quote(room)}?server_name=a.example", {})
    settle(internet, [a, b])

    def joined() -> bool:
        return guest.user_id in alice.ask("GET", f"/rooms/{quote(room)}/joined_members")["joined"]

    assert joined()
    alice.ask("PUT", GUEST_ACCESS.format(quote(room)), {"guest_access": "forbidden"})
    settle(internet, [a, b])
    settle(internet, [a, b])  # what b does of its own accord begins behind its answer
    assert not joined()


@pytest.mark.parametrize("invited", [True, False])
def test_a_guest_does_not_stay_in_a_room_elsewhere_that_takes_none(
    homes: Homes, sites: tuple[Internet, Site, Site], invited: bool
) -> None:
    internet, a, b = sites
    alice, guest = homes.person(a, "alice"), guest_of(b)
    room = alice.ask("POST", "/createRoom", {"preset": "public_chat"})["room_id"]
    if invited:
        alice.ask("POST", f"/rooms/{quote(room)}/invite", {"user_id": guest.user_id})
    settle(internet, [a, b])
    with pytest.raises(Refused) as refused:
        guest.ask("POST", f"/join/{quote(room)}?server_name=a.example", {})
    assert (refused.value.status, refused.value.errcode) == (403, "M_GUEST_ACCESS_FORBIDDEN")
    settle(internet, [a, b])
    assert guest.user_id not in alice.ask("GET", f"/rooms/{quote(room)}/joined_members")["joined"]
