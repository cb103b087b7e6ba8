"""The one-time token with which the operator of a new server makes the first account, an administrator.

It is a registration token: `m.login.registration_token` accepts it although registration is closed. It is valid for one
account and as long as there is no other; a new one replaces it at each start without accounts.
"""

import secrets
from collections.abc import Callable

from storage.tables import registration_tokens, users
from storage.tables.database import Cursor, Database
from storage.tables.registration_tokens import RegistrationTokenRow

LIFETIME_MS = 7 * 24 * 3600 * 1000


async def first_account_token(database: Database, now_ms: Callable[[], int]) -> str | None:
    """A fresh token for the server to print at its start; None when there are accounts already."""
    token = secrets.token_urlsafe(24)

    def work(cur: Cursor) -> str | None:
        registration_tokens.delete_admin_tokens(cur)
        if users.any_user_exists(cur):
            return None
        row = RegistrationTokenRow(token, 1, 0, now_ms() + LIFETIME_MS, True)
        registration_tokens.insert_token(cur, row)
        return token

    return await database.run(work)
