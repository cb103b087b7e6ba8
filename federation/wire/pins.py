"""Pins of well-known records, kept in PostgreSQL."""

from collections.abc import Callable

import orjson

from federation.rules.hashes import decode_base64, encode_base64
from federation.wire.well_known import Pin
from storage.tables import well_known_pins
from storage.tables.database import Database
from storage.tables.well_known_pins import PinRow


class StoredPins:
    """``resolver.Pins`` over the table."""

    def __init__(self, database: Database, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._now_ms = now_ms

    async def get(self, server_name: str) -> Pin | None:
        """The pin of a domain."""
        row = await self._database.run_single(lambda cur: well_known_pins.pin_of_domain(cur, server_name))
        return pin_of_row(row) if row is not None else None

    async def put(self, server_name: str, pin: Pin) -> None:
        """Pin a domain."""
        row = row_of_pin(pin)
        now = self._now_ms()
        await self._database.run_single(lambda cur: well_known_pins.upsert_pin(cur, server_name, row, now))


def pin_of_row(row: PinRow) -> Pin:
    """A pin as it was stored."""
    keys = {key_id: decode_base64(key) for key_id, key in orjson.loads(row.keys_json).items()}
    return Pin(keys, row.address, row.valid_until_ts)


def row_of_pin(pin: Pin) -> PinRow:
    """What is stored of a pin."""
    keys = {key_id: encode_base64(key) for key_id, key in pin.keys.items()}
    return PinRow(orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode(), pin.address, pin.valid_until_ts)
