"""PUT /send/{txnId}: what other servers push to us.

Server-Server API, "Transactions". One bad PDU fails alone; a transaction that comes again gets its first answer, also
while that is still being made and after a restart.
"""

from collections.abc import Callable, Sequence
from typing import Any

import orjson
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from federation.inbound.operation import TRANSACTION_LIMIT, Operation, PeerRequest
from federation.inbound.ports import ReceivesEdus, ReceivesPdus, Transactions
from federation.rules.errors import MatrixError

MAX_PDUS = 50
MAX_EDUS = 100
MAX_TRANSACTION_ID = 255
MAX_IN_FLIGHT = 5
"""Different transactions of one server that are worked on at once; well-behaved ones send one after the other."""

_report = Logger()


class TransactionEndpoints:
    """Operations of `transactions.yaml`."""

    def __init__(
        self, server_name: str, pdus: ReceivesPdus, edus: ReceivesEdus, transactions: Transactions
    ) -> None:
        self._server_name = server_name
        self._pdus = pdus
        self._edus = edus
        self._transactions = transactions
        self._in_flight: dict[str, dict[str, list[Deferred[Any]]]] = {}
        self.on_life: Callable[[str], None] | None = None
        """Told that a server has shown itself alive."""

    def operations(self) -> list[Operation]:
        """The operations."""
        return [Operation("PUT", "/_matrix/federation/v1/send/{txnId}", self.send, TRANSACTION_LIMIT)]

    async def send(self, request: PeerRequest) -> Any:
        """Process a transaction, once."""
        origin, txn_id = request.origin, request.params["txnId"]
        if not 0 < len(txn_id.encode()) <= MAX_TRANSACTION_ID:
            raise MatrixError(400, "M_INVALID_PARAM", "A transaction ID has 1 to 255 bytes")
        pdus, edus = _parts(request.object())
        if self.on_life is not None:
            self.on_life(origin)
        answered = self._transactions.answered(origin, txn_id)
        if answered is not None:
            return orjson.Fragment(answered)
        in_flight = self._in_flight.setdefault(origin, {})
        waiting = in_flight.get(txn_id)
        if waiting is not None:
            again: Deferred[Any] = Deferred()
            waiting.append(again)
            return await again
        if len(in_flight) >= MAX_IN_FLIGHT:
            raise MatrixError(429, "M_LIMIT_EXCEEDED", "One transaction after the other", retry_after_ms=1000)
        waiting = in_flight[txn_id] = []
        outcome: Any = MatrixError(500, "M_UNKNOWN", "Internal server error")
        try:
            outcome = orjson.Fragment(await self._process(origin, txn_id, pdus, edus))
            return outcome
        except MatrixError as error:
            outcome = error
            raise
        finally:
            del in_flight[txn_id]
            if not in_flight:
                self._in_flight.pop(origin, None)
            for again in waiting:
                (again.errback if isinstance(outcome, MatrixError) else again.callback)(outcome)

    async def _process(self, origin: str, txn_id: str, pdus: Sequence[Any], edus: Sequence[Any]) -> bytes:
        results: dict[str, dict[str, str]] = {}
        rooms: dict[str, list[Any]] = {}
        for pdu in pdus:
            room_id = room_of(pdu)
            if room_id is not None:
                rooms.setdefault(room_id, []).append(pdu)
        work = [Deferred.fromCoroutine(self._room(origin, room_id, part)) for room_id, part in rooms.items()]
        for outcome in await gatherResults(work, consumeErrors=True) if work else ():
            for event_id, error in outcome.items():
                results[event_id] = {} if error is None else {"error": error}
        for edu in edus:
            await self._edu(origin, edu)
        answer = orjson.dumps({"pdus": results})
        await self._transactions.remember(origin, txn_id, answer)
        return answer

    async def _room(self, origin: str, room_id: str, pdus: Sequence[Any]) -> dict[str, str | None]:
        try:
            return await self._pdus.pdus(origin, room_id, pdus)
        except ValueError:  # rows of this room are damaged, which is nothing that others' events should wait for
            _report.failure("{room_id} is damaged, events of {origin} for it are left out", room_id=room_id, origin=origin)
            return {}

    async def _edu(self, origin: str, edu: Any) -> None:
        if not isinstance(edu, dict):
            return
        edu_type, content = edu.get("edu_type"), edu.get("content")
        if not isinstance(edu_type, str) or not isinstance(content, dict):
            return
        try:
            await self._edus.edu(origin, edu_type, content)
        except MatrixError:
            return
        except Exception:
            _report.failure("a message {type} of {origin} could not be taken in", type=edu_type, origin=origin)


def _parts(content: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    pdus, edus = content.get("pdus", []), content.get("edus", [])
    if not isinstance(pdus, list) or not isinstance(edus, list):
        raise MatrixError(400, "M_BAD_JSON", "'pdus' and 'edus' are lists")
    if len(pdus) > MAX_PDUS or len(edus) > MAX_EDUS:
        raise MatrixError(400, "M_BAD_JSON", f"A transaction has at most {MAX_PDUS} PDUs and {MAX_EDUS} EDUs")
    return pdus, edus


def room_of(pdu: object) -> str | None:
    """The room that a PDU says it is of. Create events of room version 12 never come in transactions."""
    room_id = pdu.get("room_id") if isinstance(pdu, dict) else None
    return room_id if isinstance(room_id, str) else None
