"""Our own keys: what we publish of them, and our signed well-known record."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nacl.signing import VerifyKey

from federation.rules.hashes import decode_base64
from federation.rules.signing import SigningKey
from federation.wire import key_answers, well_known

RECORD_LIFETIME_MS = 7 * 24 * 60 * 60 * 1000


class OwnKeys:
    """The keys in which this server signs and has signed.

    The first of ``keys`` signs everything; further ones are on their way out and sign only the key answer and the
    well-known record, which is how a pinned key hands over to the next.
    """

    def __init__(
        self,
        server_name: str,
        keys: list[SigningKey],
        old_keys: Mapping[str, tuple[str, int]],
        lifetime_ms: int,
        now_ms: Callable[[], int],
    ) -> None:
        """``old_keys``: id to (unpadded base64, retired at in ms). ``lifetime_ms`` is ``key_refresh_interval``."""
        self.server_name = server_name
        self.keys = keys
        self._old = old_keys
        self._lifetime = max(lifetime_ms, 2 * 60 * 60 * 1000)
        self._now_ms = now_ms
        self._answer: tuple[int, dict[str, Any]] | None = None
        self._record: tuple[int, dict[str, Any]] | None = None

    def verify_keys(self, key_ids: Iterable[str], valid_at_ts: int) -> dict[str, VerifyKey]:
        """Our keys as others would have them; current ones are valid at any time."""
        found = {}
        current = {key.key_id: key.verify_key for key in self.keys}
        for key_id in key_ids:
            if key_id in current:
                found[key_id] = current[key_id]
            elif key_id in self._old and self._old[key_id][1] >= valid_at_ts:
                found[key_id] = VerifyKey(decode_base64(self._old[key_id][0]))
        return found

    def answer(self) -> dict[str, Any]:
        """What ``/_matrix/key/v2/server`` says; always valid for at least half of the interval."""
        now = self._now_ms()
        if self._answer is None or not 0 <= self._answer[0] - now - self._lifetime // 2 <= self._lifetime // 2:
            until = now + self._lifetime
            self._answer = until, key_answers.make(self.server_name, self.keys, self._old, until)
        return self._answer[1]

    def well_known_record(self, address: str) -> dict[str, Any]:
        """What ``/.well-known/matrix/server`` says, pointing to ``address``."""
        now, half = self._now_ms(), RECORD_LIFETIME_MS // 2
        if self._record is None or not 0 <= self._record[0] - now - half <= half:
            until = now + RECORD_LIFETIME_MS
            self._record = until, well_known.make_record(self.server_name, address, until, self.keys)
        return self._record[1]
