"""federation.wire.addresses and domains."""

import pytest

from config.schema import Config
from federation.wire.addresses import AddressFilter
from federation.wire.domains import Domains

FILTER = AddressFilter(Config().federation_ip_range_blacklist)
NARROW = AddressFilter(["10.0.0.0/8", "127.0.0.0/8"])


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.31.0.1", "192.168.1.1", "224.0.0.1",
        "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:a00:1", "64:ff9b::7f00:1", "2002:7f00:1::1", "2001:0:1::1", "2001:db8::1", "::127.0.0.1", "nonsense", "",
        "0177.0.0.1", "2130706433",
    ],
)  # fmt: skip
def test_e04_addresses_that_are_refused(address: str) -> None:
    assert not FILTER.permits(address)


@pytest.mark.parametrize(
    "address",
    [
        "::ffff:10.0.0.1", "::ffff:0:10.0.0.1", "::10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::10.0.0.1",
        "2002:a00:1::1", "2001:0:a00:1::1", "2001:0:102:304:0:0:f5ff:fffe", "2a00::5efe:10.0.0.1",
        "2a00::200:5efe:127.0.0.1",
    ],
)  # fmt: skip
def test_e04_ipv6_forms_carry_their_ipv4_address_with_them(address: str) -> None:
    assert not NARROW.permits(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_permitted(address: str) -> None:
    assert FILTER.permits(address)


def test_allowed_ranges_win() -> None:
    assert AddressFilter(["10.0.0.0/8"], ["10.9.0.0/16"]).permits("10.9.1.1")


def test_lists_of_domains() -> None:
    domains = Domains(["good.example", "*.friends.example", "evil.example"], ["evil.example", "bad.friends.example"])
    assert domains.permit("good.example") and domains.permit("GOOD.example:8448")
    assert domains.permit("a.friends.example")
    assert not domains.permit("friends.example")
    assert not domains.permit("evil.example:1") and not domains.permit("bad.friends.example")
    assert not domains.permit("other.example") and not domains.permit("not a name")
    assert Domains().permit("other.example") and not Domains([]).permit("other.example")
