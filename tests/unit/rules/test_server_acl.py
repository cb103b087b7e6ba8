"""federation.rules.server_acl: the specification's order of rules, globs, and lists made to be slow."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.rules.server_acl import ServerAcl, ServerGlobs


@pytest.mark.parametrize(
    ("content", "allowed", "denied"),
    [
        ({"allow": ["*"]}, ["a.example", "1.2.3.4", "[::1]:8448"], ["not a name"]),
        ({"allow": ["*"], "allow_ip_literals": False}, ["a.example"], ["1.2.3.4", "1.2.3.4:1", "[::1]"]),
        ({"allow": ["*"], "allow_ip_literals": "no"}, ["1.2.3.4"], []),
        ({"allow": ["*"], "deny": ["evil.com", "*.evil.com"]}, ["notevil.com"], ["EVIL.com:1", "a.b.evil.com"]),
        ({"allow": ["a?.example", 7, None]}, ["ab.example"], ["a.example", "abc.example"]),
        ({"deny": ["x"]}, [], ["a.example"]),
        ({"allow": "*"}, [], ["a.example"]),
        ({}, [], ["a.example"]),
    ],
)
def test_who_may_take_part(content: dict[str, object], allowed: list[str], denied: list[str]) -> None:
    acl = ServerAcl(content)
    assert [name for name in allowed if not acl.allows(name)] == []
    assert [name for name in denied if acl.allows(name)] == []


def test_c12_thousands_of_wildcards_stay_within_bounds() -> None:
    host = "a" * 240 + ".example"
    acl = ServerAcl({"allow": ["*"], "deny": ["*a" * 8 + "?" * 4 + "b*" for _ in range(2500)]})
    assert acl.allows(host)
    assert not ServerAcl({"allow": ["*"], "deny": ["*a" * 100 + "*"]}).allows(host)


@settings(max_examples=150, deadline=None)
@given(st.text("ab*?.", max_size=8), st.text("ab.", max_size=10))
def test_globs_agree_with_a_regular_expression(pattern: str, text: str) -> None:
    expression = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    assert ServerGlobs([pattern]).match(text) == (re.fullmatch(expression, text) is not None)
