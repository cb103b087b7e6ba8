"""Finding out whose password it is."""

from federation.rules.errors import MatrixError
from homeserver.accounts.passwords import Passwords
from homeserver.accounts.user_interactive import count_failed_attempt, refuse_when_tried_out
from homeserver.accounts.user_names import full_user_id, is_local
from homeserver.web.limits import Limits
from storage.tables import users
from storage.tables.database import Database
from storage.tables.users import UserRow


class PasswordLogin:
    """Login by password. A wrong password, an unknown user and a user of another server get the same answer at
    the same cost."""

    def __init__(self, database: Database, passwords: Passwords, limits: Limits, server_name: str) -> None:
        self._database = database
        self._passwords = passwords
        self._limits = limits
        self._server_name = server_name

    async def by_user(self, user: str, password: str) -> str:
        """The user ID of the localpart or user ID, if the password is right.

        Raises MatrixError 403 M_FORBIDDEN, 403 M_USER_DEACTIVATED, 429 after too many attempts.
        """
        user_id = full_user_id(user, self._server_name)
        self._limits.take("login.account", user_id)
        refuse_when_tried_out(self._limits, user_id)
        row = None
        if is_local(user_id, self._server_name):
            row = await self._find(user_id)
        return await self._verified(row, user_id, password)

    async def by_threepid(self, medium: str, address: str, password: str) -> str:
        """The same for an e-mail address or phone number of the account."""
        key = f"{medium}:{address}"
        self._limits.take("login.account", key)
        refuse_when_tried_out(self._limits, key)
        address = address.lower() if medium == "email" else address
        user_id = await self._database.run(lambda cur: users.user_with_threepid(cur, medium, address))
        row = await self._find(user_id) if user_id is not None else None
        return await self._verified(row, key, password)

    async def _find(self, user_id: str) -> UserRow | None:
        """The account, as written or, failing that, in small letters."""
        row = await self._database.run(lambda cur: users.user_by_id(cur, user_id))
        if row is None and user_id != user_id.lower():
            row = await self._database.run(lambda cur: users.user_by_id(cur, user_id.lower()))
        return row

    async def _verified(self, row: UserRow | None, limit_key: str, password: str) -> str:
        right = await self._passwords.verify(password, row.password_hash if row is not None else None)
        if row is not None and row.deactivated:
            raise MatrixError(403, "M_USER_DEACTIVATED", "This account has been deactivated")
        if row is None or not right:
            count_failed_attempt(self._limits, limit_key)
            raise MatrixError(403, "M_FORBIDDEN", "Wrong user name or password")
        return row.user_id
