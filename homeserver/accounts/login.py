"""Beginning and ending sessions: log in, refresh, log out. What every way into an account ends up calling."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from config.schema import Config
from federation.rules.errors import MatrixError
from homeserver.accounts import tokens
from homeserver.accounts.devices import DEVICE_CHANGED, Devices, remove_devices
from homeserver.accounts.sessions import Authenticator, end_predecessor
from homeserver.accounts.tokens import token_hash
from homeserver.accounts.user_names import check_device_id, check_device_name
from homeserver.web.call import Requester
from storage.tables import access_tokens, devices, login_tokens, outbox, refresh_tokens, users
from storage.tables.access_tokens import RevokedToken
from storage.tables.database import Cursor, Database

LOGIN_TOKEN_LIFETIME_MS = 120_000


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client wants of its new session."""

    device_id: str | None = None
    display_name: str | None = None
    refreshable: bool = False

    def check(self) -> None:
        """Raises MatrixError 400 for a device ID or name outside the limits."""
        if self.device_id is not None:
            check_device_id(self.device_id)
        check_device_name(self.display_name)


class Logins:
    """Sessions of accounts: made, refreshed, ended."""

    def __init__(
        self,
        database: Database,
        authenticator: Authenticator,
        device_list: Devices,
        config: Config,
        now_ms: Callable[[], int],
    ) -> None:
        self._database = database
        self._authenticator = authenticator
        self._devices = device_list
        self._config = config
        self._now_ms = now_ms

    async def begin(self, user_id: str, wish: Wish) -> dict[str, Any]:
        """A session on a new or known device: ``user_id``, ``access_token``, ``device_id`` and what belongs to it.

        Earlier tokens of that device end. Raises MatrixError 403 M_USER_DEACTIVATED and 401 M_USER_LOCKED.
        """
        wish.check()
        answer, revoked, is_new = await self._database.run(lambda cur: self.begin_in(cur, user_id, wish))
        self.begun(user_id, answer["device_id"] if is_new else None, revoked)
        return answer

    def begun(self, user_id: str, new_device_id: str | None, revoked: list[RevokedToken]) -> None:
        """Said after a commit that contained `begin_in`; ``new_device_id`` is None for a device known before."""
        self._authenticator.revoked(revoked)
        if new_device_id is not None:
            self._devices.created(user_id, new_device_id)

    def begin_in(
        self, cur: Cursor, user_id: str, wish: Wish
    ) -> tuple[dict[str, Any], list[RevokedToken], bool]:
        """Like `begin` inside a transaction: also the tokens it ended and whether the device is new."""
        now = self._now_ms()
        user = users.user_by_id(cur, user_id)
        if user is None or user.deactivated:
            raise MatrixError(403, "M_USER_DEACTIVATED", "This account has been deactivated")
        if user.locked:
            raise MatrixError(401, "M_USER_LOCKED", "This account has been locked", soft_logout=True)
        device_id = wish.device_id or tokens.new_device_id()
        is_new = devices.ensure_device(cur, user_id, device_id, wish.display_name, now)
        revoked: list[RevokedToken] = []
        if is_new:
            # Others learn of a device when it comes, not only when it has keys (Server-Server API, "Device Management").
            outbox.add(cur, DEVICE_CHANGED, {"user_id": user_id, "device_id": device_id})
        else:
            revoked = access_tokens.revoke_device_tokens(cur, user_id, [device_id])
            refresh_tokens.delete_device_refresh_tokens(cur, user_id, [device_id])
        session_end = _later(now, self._config.session_lifetime)
        pair = self._new_tokens(cur, user_id, device_id, wish.refreshable, session_end, None)
        return {"user_id": user_id, "device_id": device_id, **pair}, revoked, is_new

    async def refresh(self, refresh_token: str) -> dict[str, Any]:
        """New tokens for a refresh token, which stays good until one of the new ones is used.

        Raises MatrixError 401 M_UNKNOWN_TOKEN (``soft_logout`` when the session ran out), M_USER_LOCKED.
        """
        hashed = token_hash(refresh_token)
        answer, revoked = await self._database.run(lambda cur: self._refresh(cur, hashed))
        self._authenticator.revoked(revoked)
        return answer

    def _refresh(self, cur: Cursor, hashed: bytes) -> tuple[dict[str, Any], list[RevokedToken]]:
        now = self._now_ms()
        row = refresh_tokens.lock_refresh_token(cur, hashed)
        if row is None or row.deactivated:
            raise MatrixError(401, "M_UNKNOWN_TOKEN", "Unknown refresh token", soft_logout=False)
        if row.locked:
            raise MatrixError(401, "M_USER_LOCKED", "This account has been locked", soft_logout=True)
        ends = [ts for ts in (row.expires_ts, row.session_expires_ts) if ts is not None]
        if ends and min(ends) <= now:
            raise MatrixError(401, "M_UNKNOWN_TOKEN", "The session has expired", soft_logout=True)
        revoked = end_predecessor(cur, row.refresh_id)
        unused = refresh_tokens.successors(cur, row.refresh_id)
        for successor in unused:  # an answer that got lost: nobody has used these
            revoked += access_tokens.revoke_refreshed(cur, successor)
        refresh_tokens.delete_refresh_tokens(cur, unused)
        pair = self._new_tokens(
            cur, row.user_id, row.device_id, True, row.session_expires_ts, replaces=row.refresh_id
        )
        return pair, revoked

    def _new_tokens(
        self,
        cur: Cursor,
        user_id: str,
        device_id: str,
        refreshable: bool,
        session_end: int | None,
        replaces: int | None,
    ) -> dict[str, Any]:
        config, now = self._config, self._now_ms()
        access_token = tokens.new_access_token()
        answer: dict[str, Any] = {"access_token": access_token}
        refresh_id = None
        lifetime = config.nonrefreshable_access_token_lifetime
        if refreshable and config.refreshable_access_token_lifetime is not None:
            lifetime = config.refreshable_access_token_lifetime
            refresh_token = tokens.new_refresh_token()
            refresh_end = _later(now, config.refresh_token_lifetime)
            refresh_id = refresh_tokens.insert_refresh_token(
                cur, token_hash(refresh_token), user_id, device_id, refresh_end, session_end, replaces
            )
            answer["refresh_token"] = refresh_token
        ends = [ts for ts in (_later(now, lifetime), session_end) if ts is not None]
        expires = min(ends) if ends else None
        access_tokens.insert_access_token(
            cur, token_hash(access_token), user_id, device_id, now, expires, refresh_id
        )
        if expires is not None:
            answer["expires_in_ms"] = max(0, expires - now)
        return answer

    async def end(self, requester: Requester) -> None:
        """Log out: the device with its keys and messages goes, or the token alone when it has no device."""
        if requester.device_id is not None:
            await self._devices.delete(requester.user_id, [requester.device_id])
            return
        token_id = requester.token_id
        assert isinstance(token_id, int)
        self._authenticator.revoked(
            await self._database.run(lambda cur: access_tokens.revoke_token(cur, token_id))
        )

    async def end_all(self, user_id: str) -> None:
        """Log out everywhere: all devices, all tokens, login tokens included."""

        def work(cur: Cursor) -> tuple[list[str], list[RevokedToken]]:
            login_tokens.delete_login_tokens(cur, user_id)
            own = [device.device_id for device in devices.devices_of(cur, user_id)]
            revoked = access_tokens.revoke_user_tokens(cur, user_id)
            deleted, more = remove_devices(cur, user_id, own)
            return deleted, revoked + more

        deleted, revoked = await self._database.run(work)
        self._authenticator.revoked(revoked)
        self._devices.removed(user_id, deleted)

    async def new_login_token(self, user_id: str) -> dict[str, Any]:
        """A token with which another client can log into the account once, within two minutes."""
        token, now = tokens.new_login_token(), self._now_ms()
        await self._database.run(
            lambda cur: login_tokens.insert_login_token(
                cur, token_hash(token), user_id, now + LOGIN_TOKEN_LIFETIME_MS, now
            )
        )
        return {"login_token": token, "expires_in_ms": LOGIN_TOKEN_LIFETIME_MS}

    async def take_login_token(self, token: str) -> str:
        """The account of a login token, which is used up. Raises MatrixError 403 M_FORBIDDEN."""
        now = self._now_ms()
        user_id = await self._database.run(
            lambda cur: login_tokens.take_login_token(cur, token_hash(token), now)
        )
        if user_id is None:
            raise MatrixError(403, "M_FORBIDDEN", "Unknown or expired login token")
        return user_id


def _later(now: int, lifetime: int | None) -> int | None:
    return None if lifetime is None else now + lifetime
