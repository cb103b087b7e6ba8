"""``docs/log-format.md`` against the code: tables, kinds, the layout of event records."""

import re
from pathlib import Path

from storage.log.append import LEASE, Kind
from storage.log.catalog import FORMAT, TABLES
from storage.log.events import _HEADER, OUTLIER, REDACTED, REJECTED, RELAYED, SOFT_FAILED
from storage.log.keys import PART_LIMIT
from storage.log.rooms import RoomMeta
from storage.log.state_map import INLINE_MAX, LEAF_MAX, ROOT_SIZE

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "log-format.md").read_text("utf-8")


def test_every_table_is_described() -> None:
    """A new table gets a line: what its keys and values are."""
    described = set(re.findall(r"`(\w+)`", PAGE[PAGE.index("## Order and durability") :]))
    assert [table.name for table in TABLES if table.name not in described] == []


def test_derived_tables_are_in_the_table_of_indexes() -> None:
    indexes = PAGE[PAGE.index("## Indexes") :]
    told = set(re.findall(r"^\| `(\w+)`", indexes, re.MULTILINE))
    assert told == {table.name for table in TABLES if table.derived}


def test_every_kind_has_its_number() -> None:
    told: dict[int, str] = {}
    for numbers, names in re.findall(r"^\| ([\d, ]+) \| ([A-Z_]+(?:, [A-Z_]+)*)", PAGE, re.MULTILINE):
        told |= dict(zip(map(int, numbers.split(", ")), names.split(", "), strict=True))
    assert told == {int(kind): kind.name for kind in Kind}


def test_the_header_of_records_has_these_offsets() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d*) \|", PAGE[PAGE.index("| offset") : PAGE.index("## The state map")], re.MULTILINE)
    end = 0
    for offset, size in rows:
        assert int(offset) == end
        end += int(size or 0)
    assert end == _HEADER.size
    flags = {"rejected": REJECTED, "soft-failed": SOFT_FAILED, "outlier": OUTLIER, "redacted": REDACTED, "relayed": RELAYED}
    assert ", ".join(f"{number} {name}" for name, number in flags.items()) in PAGE


def test_numbers() -> None:
    assert f"format number **{FORMAT}**" in PAGE
    assert f"a new one {LEASE} ahead" in PAGE
    assert f"a length byte 0–{PART_LIMIT}" in PAGE
    assert f"{ROOT_SIZE}-byte BLAKE2b hash of the value" in PAGE
    assert f"at most {LEAF_MAX} keys is one leaf" in PAGE
    assert f"(at most {INLINE_MAX} pairs)" in PAGE


def test_the_row_of_a_room_has_this_many_fields() -> None:
    row = re.search(r"^- `rooms`: [^:]*: (.*?)\.$", PAGE, re.MULTILINE | re.DOTALL)
    assert row is not None
    fields = re.sub(r"\([^)]*\)", "", row[1]).split(",")
    unused = 1  # "two strings" are two fields
    assert len(fields) + unused == len(RoomMeta.__struct_fields__)
