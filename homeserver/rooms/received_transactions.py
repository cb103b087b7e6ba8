"""Answers to other servers' transactions, so that one that comes again gets its first answer, also after a restart.

Server-Server API, "Transactions". Kept in the log beside the clients' transactions: they become durable with what they did,
in the same commit, and cost no query.
"""

from storage.log import transactions
from storage.log.append import Log

_SCOPE = "federation/send"


class ReceivedTransactions:
    """See `federation.inbound.ports.Transactions`. Server names are no user ids, so that the rows cannot meet."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def answered(self, origin: str, txn_id: str) -> bytes | None:
        """The answer to a transaction that was processed."""
        return transactions.get_transaction(self._log, origin, "", _SCOPE, txn_id)

    async def remember(self, origin: str, txn_id: str, answer: bytes) -> None:
        """Keep an answer; durable on return, and with it all that was submitted before."""
        batch = self._log.begin()
        transactions.put_transaction(batch, origin, "", _SCOPE, txn_id, answer, self._log.position)
        await self._log.append(batch)
