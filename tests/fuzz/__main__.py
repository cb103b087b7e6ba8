"""Fuzz the parsers, led by coverage: `make fuzz`, or `make fuzz ARGS="--only event --seconds 600"`.

Each target runs in a process of its own, which ends at the first failure: the trace is on the screen and the input in the
corpus, where the tests take it up. What led to new branches is kept as well, and replaced where less does the same.
"""

import argparse
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from random import Random

from tests.fuzz.corpus import keep, kept
from tests.fuzz.mutation import mutate
from tests.fuzz.targets import TARGETS

MAX_INPUT = 4096
"""Bytes: what is longer takes longer and finds nothing more in parsers like these."""


def main() -> int:
    """Fuzz; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="make fuzz ARGS=", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=list(TARGETS), action="append", help="a target (may be repeated)")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--child", choices=list(TARGETS), help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    wish = parser.parse_args()
    if wish.child is not None:
        return _fuzz(wish.child, wish.arguments)
    names = wish.only or list(TARGETS)
    found = [name for name in names if not _run(name, wish.seconds)]
    print(f"{len(names) - len(found)} targets held, {len(found)} did not{': ' + ', '.join(found) if found else ''}")
    return 1 if found else 0


def _run(name: str, seconds: int) -> bool:
    before = kept(name)
    print(f"{name}: {seconds} s, beginning with {len(before)} kept inputs", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folders = inputs, seeds, failed = [Path(scratch) / part for part in ("inputs", "seeds", "failed")]
        for folder in folders:
            folder.mkdir()
        for folder, several in ((inputs, before), (seeds, TARGETS[name].seeds)):
            for data in several:
                (folder / sha256(data).hexdigest()).write_bytes(data)
        limits = [f"-max_total_time={seconds}", f"-max_len={MAX_INPUT}", "-timeout=10", f"-artifact_prefix={failed}/"]
        child = [sys.executable, "-m", "tests.fuzz", "--child", name, "--", *limits, str(inputs), str(seeds)]
        held = subprocess.run(child).returncode == 0
        keep(name, [path.read_bytes() for folder in (inputs, failed) for path in folder.iterdir()])
    print(f"{name}: {len(kept(name))} inputs are kept", flush=True)
    return held


def _fuzz(name: str, arguments: list[str]) -> int:
    try:
        import atheris
    except ImportError:
        print("Fuzzing needs atheris: pip install -e '.[fuzz]'", file=sys.stderr)
        return 2
    target = TARGETS[name]

    def mutator(data: bytes, max_size: int, seed: int) -> bytes:
        changed = mutate(data, Random(seed), target.head, lambda raw: bytes(atheris.Mutate(raw, max_size)))
        return changed[:max_size]

    atheris.instrument_all()
    atheris.Setup([name, *arguments], target.run, custom_mutator=None if target.head is None else mutator)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
