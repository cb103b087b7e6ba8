"""The inputs that fuzzing keeps: a file for each target, a line for each input, in base64."""

from base64 import b64decode, b64encode
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


def kept(name: str) -> list[bytes]:
    """The inputs of a target; none if it has no file yet."""
    file = FOLDER / f"{name}.txt"
    return [b64decode(line) for line in file.read_text().split()] if file.exists() else []


def keep(name: str, inputs: Iterable[bytes]) -> None:
    """Write the inputs of a target down, the short ones first."""
    FOLDER.mkdir(exist_ok=True)
    lines = (b64encode(data).decode() for data in sorted(set(inputs), key=lambda data: (len(data), data)) if data)
    (FOLDER / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
