"""The end of an account, and the change of its password: both end sessions."""

from homeserver.accounts.devices import DEVICE_CHANGED, Devices, remove_devices
from homeserver.accounts.interactive_auth import Sessions
from homeserver.accounts.sessions import Authenticator
from homeserver.web.call import Requester
from storage.tables import access_tokens, devices, login_tokens, outbox, private_data, profiles, users
from storage.tables.access_tokens import RevokedToken
from storage.tables.database import Cursor, Database

ACCOUNT_DEACTIVATED = "account_deactivated"
"""Kind of the outbox row: ``{"user_id": ..., "erase": bool}``: rooms to leave, data to delete. May come twice."""


class Deactivation:
    """Ends accounts and sessions."""

    def __init__(
        self, database: Database, authenticator: Authenticator, device_list: Devices, sessions: Sessions
    ) -> None:
        self._database = database
        self._authenticator = authenticator
        self._devices = device_list
        self._sessions = sessions

    async def deactivate(self, user_id: str, erase: bool) -> None:
        """Close the account for good: no way in stays open, the user ID is never given out again.

        Profile, third-party identifiers, keys and all that only the owner's clients could read go. Doing it again
        changes nothing.
        """

        def work(cur: Cursor) -> tuple[list[str], list[RevokedToken]]:
            if users.deactivate_user(cur, user_id, erase):
                private_data.delete_private_data(cur, user_id)
                outbox.add(cur, DEVICE_CHANGED, {"user_id": user_id})
                outbox.add(cur, ACCOUNT_DEACTIVATED, {"user_id": user_id, "erase": erase})
            users.delete_threepids(cur, user_id)
            profiles.delete_profile(cur, user_id)
            return _end_sessions(cur, user_id, keep=None)

        deleted, revoked = await self._database.run(work)
        self._ended(user_id, deleted, revoked)

    async def change_password(
        self, user_id: str, password_hash: str, keep: Requester | None, logout_devices: bool
    ) -> None:
        """Set a new password; with ``logout_devices`` all sessions but that of ``keep`` end, with their devices."""

        def work(cur: Cursor) -> tuple[list[str], list[RevokedToken]]:
            users.set_password(cur, user_id, password_hash)
            if not logout_devices:
                login_tokens.delete_login_tokens(cur, user_id)
                return [], []
            return _end_sessions(cur, user_id, keep)

        deleted, revoked = await self._database.run(work)
        self._ended(user_id, deleted, revoked)

    async def set_locked(self, user_id: str, locked: bool) -> None:
        """Lock or unlock an account: its sessions stay, but nothing is let in meanwhile."""
        await self._database.run(lambda cur: users.set_locked(cur, user_id, locked))
        if locked:
            self._authenticator.locked(user_id)
        else:
            self._authenticator.forget_user(user_id)

    def _ended(self, user_id: str, deleted: list[str], revoked: list[RevokedToken]) -> None:
        self._sessions.drop_user(user_id)
        self._authenticator.revoked(revoked)
        self._devices.removed(user_id, deleted)


def _end_sessions(cur: Cursor, user_id: str, keep: Requester | None) -> tuple[list[str], list[RevokedToken]]:
    login_tokens.delete_login_tokens(cur, user_id)
    kept_token = keep.token_id if keep is not None and isinstance(keep.token_id, int) else None
    kept_device = keep.device_id if keep is not None else None
    going = [row.device_id for row in devices.devices_of(cur, user_id) if row.device_id != kept_device]
    revoked = access_tokens.revoke_user_tokens(cur, user_id, keep=kept_token)
    deleted, more = remove_devices(cur, user_id, going)
    return deleted, revoked + more
