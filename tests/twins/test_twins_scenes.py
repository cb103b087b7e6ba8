"""The scenes in `scenes/` on whole homeservers, in the room versions that each names (`tests/fakes/scenes.py`)."""

from pathlib import Path

import pytest

from tests.fakes.homeservers import Homes
from tests.fakes.scenes import Scene

FOLDER = Path(__file__).parent / "scenes"
SCENES = {file.stem: file.read_text("utf-8") for file in sorted(FOLDER.glob("*.txt"))}


def versions(text: str) -> list[str]:
    """The first line: ``versions 6 10 11 12``."""
    first, _, _ = text.partition("\n")
    assert first.startswith("versions ")
    return first.split()[1:]


PLAYED = [(name, version) for name, text in SCENES.items() for version in versions(text)]


@pytest.mark.parametrize(("name", "version"), PLAYED)
def test_scene(homes: Homes, name: str, version: str) -> None:
    Scene(homes, version).play(SCENES[name])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("alice@north dances in club", "no such line"),
        ('everybody sees in club "hello" "more"', r"sees \['hello'\]"),
        ("refused: alice@north types in club", "DID NOT RAISE"),
        ("alice@north is ban in club on north", "for join"),
    ],
)
def test_a_line_that_is_not_so_is_named(homes: Homes, line: str, problem: str) -> None:
    scene = Scene(homes, "11")
    scene.play('servers north\nalice@north creates club\nalice@north says "hello" in club')
    with pytest.raises(AssertionError, match=f"line 2: {line}\n.*{problem}"):
        scene.play(f"# it is wrong\n{line}")
