"""The devices of an account: list, rename, delete.

Deleting one also deletes its tokens here, and its keys and inbox elsewhere: those are told by the observers, and by an
outbox row in the same transaction in case the server dies before they have finished.
"""

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from federation.rules.errors import MatrixError
from homeserver.accounts.sessions import Authenticator
from homeserver.accounts.user_names import check_device_name
from storage.tables import access_tokens, devices, outbox
from storage.tables.access_tokens import RevokedToken
from storage.tables.database import Cursor, Database
from storage.tables.devices import DeviceRow

DEVICE_DELETED = "device_deleted"
"""Kind of the outbox row: ``{"user_id": ..., "device_id": ...}``. Handling it twice must do no harm."""

DEVICE_CHANGED = "device_changed"
"""Kind of the outbox row for a new or renamed device; the same payload, without device for the user's own keys."""

MAX_DEVICES_AT_ONCE = 10_000

log = Logger()

DeviceObserver = Callable[[str, str], None]


class Devices:
    """Devices of local accounts. The lists hold observers called with ``(user_id, device_id)`` after the commit."""

    def __init__(self, database: Database, authenticator: Authenticator) -> None:
        self.on_deleted: list[DeviceObserver] = []
        self.on_created: list[DeviceObserver] = []
        self.on_renamed: list[DeviceObserver] = []
        self._database = database
        self._authenticator = authenticator

    async def all_of(self, user_id: str) -> list[DeviceRow]:
        """All devices of the account, with fresh ``last_seen`` values."""
        await self._authenticator.flush()
        return await self._database.run(lambda cur: devices.devices_of(cur, user_id))

    async def get(self, user_id: str, device_id: str) -> DeviceRow:
        """One device. Raises MatrixError 404 M_NOT_FOUND."""
        await self._authenticator.flush()
        row = await self._database.run(lambda cur: devices.device(cur, user_id, device_id))
        if row is None:
            raise _no_device()
        return row

    async def rename(self, user_id: str, device_id: str, display_name: str | None) -> None:
        """Set the display name; None leaves it. Raises MatrixError 404 M_NOT_FOUND, 400 for a long name."""
        check_device_name(display_name)
        if display_name is None:
            await self.get(user_id, device_id)
            return
        name = display_name

        def work(cur: Cursor) -> None:
            if not devices.rename_device(cur, user_id, device_id, name):
                raise _no_device()
            outbox.add(cur, DEVICE_CHANGED, {"user_id": user_id, "device_id": device_id})

        await self._database.run(work)
        self._tell(self.on_renamed, user_id, [device_id])

    async def delete(self, user_id: str, device_ids: list[str]) -> None:
        """Delete devices and end their sessions; those that don't exist are passed over."""
        deleted, revoked = await self._database.run(lambda cur: remove_devices(cur, user_id, device_ids))
        self._authenticator.revoked(revoked)
        self.removed(user_id, deleted)

    def created(self, user_id: str, device_id: str) -> None:
        """Said after the commit that made a device."""
        self._tell(self.on_created, user_id, [device_id])

    def removed(self, user_id: str, device_ids: list[str]) -> None:
        """Said after the commit that removed devices with `remove_devices`."""
        self._tell(self.on_deleted, user_id, device_ids)

    def _tell(self, observers: list[DeviceObserver], user_id: str, device_ids: list[str]) -> None:
        for device_id in device_ids:
            for observer in observers:
                try:
                    observer(user_id, device_id)
                except Exception:
                    log.failure("An observer of devices failed")


def remove_devices(cur: Cursor, user_id: str, device_ids: list[str]) -> tuple[list[str], list[RevokedToken]]:
    """In a transaction: delete devices and their tokens, and leave the rest to the outbox.

    Returns the devices that existed and the tokens that ended; say `revoked` and `removed` after the commit.
    """
    revoked = access_tokens.revoke_device_tokens(cur, user_id, device_ids)
    deleted = devices.delete_devices(cur, user_id, device_ids)
    for device_id in deleted:
        outbox.add(cur, DEVICE_DELETED, {"user_id": user_id, "device_id": device_id})
    return deleted, revoked


def device_json(row: DeviceRow) -> dict[str, Any]:
    """A device as its owner sees it (Client-Server API, "Client Device")."""
    body: dict[str, Any] = {"device_id": row.device_id}
    if row.display_name is not None:
        body["display_name"] = row.display_name
    if row.last_seen_ts is not None:
        body["last_seen_ts"] = row.last_seen_ts
        body["last_seen_ip"] = row.last_seen_ip
    return body


def _no_device() -> MatrixError:
    return MatrixError(404, "M_NOT_FOUND", "There is no such device")
