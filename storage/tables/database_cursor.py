"""Cursors that save round trips: BEGIN travels together with the first statement of a transaction."""

from typing import Any

from psycopg2.extensions import cursor as Cursor

from storage.tables.errors import UnstorableText


class TransactionCursor(Cursor):
    """A cursor on an autocommit connection that opens the transaction with its first statement.

    ``outbox_written`` is set by ``outbox.add``. A transaction that executed nothing was never opened.
    """

    begun = False
    outbox_written = False

    def execute(self, query: Any, vars: Any = None) -> None:
        """As psycopg2's, with BEGIN in front of the first statement; raises UnstorableText for NUL and surrogates."""
        if self.begun:
            return _storable(super().execute, query, vars)
        if not isinstance(query, (str, bytes)):
            query = query.as_string(self)
        self.begun = True
        return _storable(
            super().execute, b"BEGIN;" + query if isinstance(query, bytes) else "BEGIN;" + query, vars
        )

    def executemany(self, query: Any, vars_list: Any) -> None:
        """As psycopg2's: one round trip for each row. Prefer ``psycopg2.extras.execute_values`` or arrays."""
        for vars in vars_list:
            self.execute(query, vars)


class SingleCursor(Cursor):
    """A cursor for exactly one statement, which is its own transaction."""

    executed = False

    def execute(self, query: Any, vars: Any = None) -> None:
        """As psycopg2's, once; a second statement would not be in the same transaction and is an error."""
        if self.executed:
            raise RuntimeError("run_single() is for one statement; use run() for a transaction")
        self.executed = True
        return _storable(super().execute, query, vars)


def _storable(execute: Any, query: Any, vars: Any) -> None:
    try:
        execute(query, vars)
    except UnicodeEncodeError as problem:  # a lone surrogate
        raise UnstorableText() from problem
    except ValueError as problem:  # what psycopg2 says of NUL, before anything is sent
        if "NUL" not in str(problem):
            raise
        raise UnstorableText() from problem
