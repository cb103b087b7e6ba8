"""Identifiers and server names, with their near misses (cases A11 and A12)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.rules import ids
from federation.rules.endpoint import ServerName, parse_server_name

GOOD_SERVERS = {
    "matrix.org": ("matrix.org", None, "dns"),
    "matrix.org:8888": ("matrix.org", 8888, "dns"),
    "1.2.3.4": ("1.2.3.4", None, "ipv4"),
    "1.2.3.4:1234": ("1.2.3.4", 1234, "ipv4"),
    "[1234:5678::abcd]": ("1234:5678::abcd", None, "ipv6"),
    "[1234:5678::abcd]:5678": ("1234:5678::abcd", 5678, "ipv6"),
    "[::1]": ("::1", None, "ipv6"),
    "LOCALHOST": ("LOCALHOST", None, "dns"),
}
BAD_SERVERS = [
    "", ".", "..", "a..b", ".a", "a.", "a/b", "../x", "a:", "a:0", "a:65536", "a:99999", "a:123456", "a:+1", "a:1 ",
    "a b", "ä.org", "a%2f", "256.1.1.1", "1.2.3.4:", "::1", "[::1", "[::1]x", "[::1]:", "[]", "[g::1]", "[1.2.3.4]",
    "a\0b", "a\n", "x" * 256, "a_b", "a:٣",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD_SERVERS)
def test_server_names_are_taken_apart(name):
    assert parse_server_name(name) == ServerName(*GOOD_SERVERS[name])
    assert ids.is_valid_user_id(f"@a:{name}")


@pytest.mark.parametrize("name", BAD_SERVERS)
def test_a12_near_misses_of_server_names_are_refused(name):
    assert parse_server_name(name) is None
    assert not ids.is_valid_server_name(name)
    for sigil, check in (("@", ids.is_valid_user_id), ("#", ids.is_valid_room_alias)):
        assert not check(f"{sigil}a:{name}")
    assert ids.parse_mxc(f"mxc://{name}/abc") is None


@pytest.mark.parametrize("bad", ["", "@", "a:b", "@a", "a", "#a:b", "@a\0:b", "@\ud800:b", None, 7, ["@a:b"], True])
def test_a12_near_misses_of_user_ids_are_refused(bad):
    assert not ids.is_valid_user_id(bad)


def test_historical_user_ids_are_accepted():
    assert ids.is_valid_user_id("@:a") and ids.is_valid_user_id("@Ä B/\x01:a")


def test_a11_length_counts_bytes_not_characters():
    assert ids.is_valid_user_id("@" + "𝒳" * 62 + "aaaa:b.") is False  # trailing dot
    assert ids.is_valid_user_id("@" + "𝒳" * 62 + "aaaa:b")  # 1 + 248 + 4 + 2 = 255
    assert not ids.is_valid_user_id("@" + "𝒳" * 62 + "aaaaa:b")
    assert not ids.is_valid_user_id("@" + "𝒳" * 100 + ":b")
    assert ids.is_valid_room_alias("#" + "a" * 252 + ":b") and not ids.is_valid_room_alias("#" + "a" * 253 + ":b")


def test_room_and_event_ids_come_with_a_domain_or_as_a_hash():
    digest = "a" * 43
    assert ids.is_valid_room_id("!x:a") and ids.is_valid_room_id("!" + digest)
    assert ids.is_valid_event_id("$x:a") and ids.is_valid_event_id("$" + digest)
    for bad in ("!", "!x", "!" + digest + "a", "$" + digest, "!" + "a" * 42 + "*", "!" + digest + "\n", None):
        assert not ids.is_valid_room_id(bad)
    for bad in ("$", "$x", "!" + digest, "$x:..", None):
        assert not ids.is_valid_event_id(bad)


@pytest.mark.parametrize(
    "bad", ["mxc://a", "mxc://a/", "mxc://a/../b", "mxc://a/b/c", "mxc://a/%2e", "http://a/b", "mxc:///b", None, 1,
            "mxc://a/" + "x" * 256, "mxc://a/b\n"]
)  # fmt: skip
def test_a12_near_misses_of_mxc_are_refused(bad):
    assert ids.parse_mxc(bad) is None


def test_mxc_has_two_parts():
    assert ids.parse_mxc("mxc://a.org:80/Ab_-1") == ("a.org:80", "Ab_-1")


@given(st.text(max_size=20))
def test_a12_whatever_passes_is_fit_for_a_path(text):
    for name in (text, "a" + text):
        if ids.is_valid_server_name(name):
            assert name.isascii() and not {"/", "\\", "\0", "%"} & set(name) and ".." not in name
