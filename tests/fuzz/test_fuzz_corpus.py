"""J03: everything that fuzzing has found so far, and what it begins with, goes through the parsers again."""

import pytest

from tests.fuzz.corpus import FOLDER, kept
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_j03_what_fuzzing_found(name: str) -> None:
    found = kept(name)
    assert found, "the corpus is kept"
    for data in (*TARGETS[name].seeds, *found):
        TARGETS[name].run(data)


def test_j03_every_part_of_the_corpus_has_its_target() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(TARGETS)


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("event", b"\x09" + b"[]"),
        ("request_body", b'{"a":NaN}'),
        ("canonical", b'{"a":1,"a":2}'),
        ("authorization", b"X-Matrix origin=\xff"),
    ],
)
def test_j03_bad_input_is_refused_and_not_a_failure(name: str, refused: bytes) -> None:
    TARGETS[name].run(refused)
