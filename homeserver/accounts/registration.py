"""Making accounts. Every way to register ends in `Registration.create`."""

import secrets
import string
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from twisted.logger import Logger

from config.schema import Config
from federation.rules.errors import MatrixError
from homeserver.accounts.devices import Devices, remove_devices
from homeserver.accounts.interactive_auth import DUMMY, REGISTRATION_TOKEN, TERMS, Flows, Session
from homeserver.accounts.login import Logins, Wish
from homeserver.accounts.passwords import Passwords
from homeserver.accounts.tokens import token_hash
from homeserver.accounts.user_names import localpart_for
from storage.tables import access_tokens, devices, profiles, registration_tokens, users
from storage.tables.access_tokens import RevokedToken
from storage.tables.database import Cursor, Database
from storage.tables.users import UserRow

log = Logger()


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to be made. ``localpart`` None: one is picked. ``wish`` None: no session is begun."""

    localpart: str | None = None
    password_hash: str | None = None
    wish: Wish | None = None
    is_admin: bool = False
    is_guest: bool = False
    display_name: str | None = None
    registration_token: str | None = None
    upgrades_guest: bool = False
    """The account exists already, as a guest's, and becomes a person's."""


class Registration:
    """Accounts of this server. ``on_upgraded`` lists observers of guests who became users, called after the commit."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        logins: Logins,
        device_list: Devices,
        config: Config,
        now_ms: Callable[[], int],
    ) -> None:
        self.on_upgraded: list[Callable[[str], Awaitable[None]]] = []
        self._database = database
        self._passwords = passwords
        self._logins = logins
        self._devices = device_list
        self._config = config
        self._now_ms = now_ms

    async def hash_password(self, password: str) -> str:
        """What `NewAccount.password_hash` wants."""
        return await self._passwords.hash(password)

    async def check_available(self, username: str) -> str:
        """The localpart that the name becomes. Raises MatrixError 400 M_INVALID_USERNAME or M_USER_IN_USE."""
        localpart = localpart_for(username, self._config.server_name)
        user_id = self._user_id(localpart)
        if await self._database.run(lambda cur: users.user_by_id(cur, user_id)) is not None:
            raise _in_use()
        return localpart

    async def check_guest(self, username: str | None, token: str) -> str:
        """The localpart of the guest whose access token this is, named rightly by ``username`` ("Guest Access").

        Raises MatrixError 400 M_MISSING_PARAM without a name, 403 M_FORBIDDEN when the two don't belong together.
        """
        if username is None:
            raise MatrixError(400, "M_MISSING_PARAM", "A guest's account keeps its name: `username` is missing")
        row = await self._database.run(lambda cur: access_tokens.token_by_hash(cur, token_hash(token)))
        expired = row is not None and row.expires_ts is not None and row.expires_ts <= self._now_ms()
        if (
            row is None or expired or not row.is_guest or row.deactivated or row.locked
            or row.user_id != self._user_id(username)
        ):  # fmt: skip
            raise MatrixError(403, "M_FORBIDDEN", "`guest_access_token` is not the token of the guest of this name")
        return username

    async def flows(self) -> Flows:
        """The ways to register now. Raises MatrixError 403 M_FORBIDDEN when there is none."""
        config, now = self._config, self._now_ms()
        flows: list[tuple[str, ...]] = []
        if config.enable_registration:
            open_to_all = config.enable_registration_without_verification and not config.registration_requires_token
            flows.append((DUMMY,) if open_to_all else (REGISTRATION_TOKEN,))
        if (REGISTRATION_TOKEN,) not in flows and await self._database.run(
            lambda cur: registration_tokens.admin_token_exists(cur, now)
        ):
            flows.append((REGISTRATION_TOKEN,))
        if not flows:
            raise MatrixError(403, "M_FORBIDDEN", "Registration has been disabled on this server")
        if config.terms is not None:
            flows = [(TERMS, *flow) for flow in flows]
        return tuple(flows)

    async def token_is_valid(self, token: str) -> bool:
        """Whether a registration token would be accepted now. Raises MatrixError 403 when registration is closed."""
        now = self._now_ms()
        row = await self._database.run(lambda cur: registration_tokens.valid_token(cur, token, now))
        if not self._config.enable_registration and (row is None or not row.makes_admin):
            raise MatrixError(403, "M_FORBIDDEN", "Registration has been disabled on this server")
        return row is not None

    async def create(self, account: NewAccount) -> dict[str, Any]:
        """Make the account in one transaction with its first session and the use of its registration token.

        Returns the body for the client. Raises MatrixError 400 M_USER_IN_USE, 403 M_FORBIDDEN for a used-up token.
        """
        candidates = [account.localpart or new_localpart(account.is_guest) for _ in range(5)]
        made = await self._database.run(lambda cur: self._create(cur, account, candidates))
        answer, user_id = made.answer, made.answer["user_id"]
        self._logins.begun(user_id, made.new_device_id, made.revoked)
        self._devices.removed(user_id, made.removed_devices)
        for observer in self.on_upgraded if account.upgrades_guest else ():
            try:
                await observer(user_id)
            except Exception:
                log.failure("An observer of guests who became users failed")
        return answer

    async def log_in_again(self, user_id: str, wish: Wish) -> dict[str, Any]:
        """A session for an account that was just made, whose first answer got lost."""
        return await self._logins.begin(user_id, wish)

    def _create(self, cur: Cursor, account: NewAccount, candidates: list[str]) -> "_Made":
        now = self._now_ms()
        is_admin = account.is_admin or self._use_token(cur, account.registration_token, now)
        made = _Made({})
        if account.upgrades_guest:
            user_id = self._user_id(localpart := candidates[0])
            self._upgrade_guest(cur, user_id, account, is_admin, made)
        else:
            for localpart in candidates:
                user_id = self._user_id(localpart)
                row = UserRow(user_id, account.password_hash, now, is_admin, account.is_guest)
                if users.insert_user(cur, row):
                    break
            else:
                raise _in_use()
        if not account.is_guest and not (account.upgrades_guest and profiles.profile(cur, user_id) != b"{}"):
            name = account.display_name or localpart
            profiles.store_profile(cur, user_id, orjson.dumps({"displayname": name}), name.lower())
        made.answer = {"user_id": user_id}
        if account.wish is not None:
            made.answer, revoked, is_new = self._logins.begin_in(cur, user_id, account.wish)
            made.revoked += revoked
            made.new_device_id = made.answer["device_id"] if is_new else None
        made.answer["home_server"] = self._config.server_name
        return made

    def _upgrade_guest(self, cur: Cursor, user_id: str, account: NewAccount, is_admin: bool, made: "_Made") -> None:
        """The guest's sessions end, as those of the new account begin with its own rights; a device that goes on stays."""
        if not users.upgrade_guest(cur, user_id, account.password_hash, is_admin):
            raise _in_use()
        kept = account.wish.device_id if account.wish is not None else None
        made.revoked += access_tokens.revoke_user_tokens(cur, user_id)
        going = [row.device_id for row in devices.devices_of(cur, user_id) if row.device_id != kept]
        made.removed_devices, revoked = remove_devices(cur, user_id, going)
        made.revoked += revoked

    def _use_token(self, cur: Cursor, token: str | None, now: int) -> bool:
        """Count a use of a registration token; True when it makes an administrator."""
        if token is None:
            return False
        row = registration_tokens.use_token(cur, token, now)
        if row is None or (row.makes_admin and users.any_user_exists(cur)):
            raise MatrixError(403, "M_FORBIDDEN", "This registration token is no longer valid")
        return row.makes_admin

    def _user_id(self, localpart: str) -> str:
        return f"@{localpart}:{self._config.server_name}"


@dataclass(slots=True)
class _Made:
    """What a transaction that made an account did; ``answer`` is the body for the client."""

    answer: dict[str, Any]
    revoked: list[RevokedToken] = field(default_factory=list)
    new_device_id: str | None = None
    removed_devices: list[str] = field(default_factory=list)


class RegistrationStages:
    """The checks of the stages that `/register` offers."""

    def __init__(self, registration: Registration) -> None:
        self._registration = registration

    async def dummy(self, session: Session, auth: Mapping[str, Any]) -> str:
        """`m.login.dummy`: nothing to check."""
        return ""

    async def terms(self, session: Session, auth: Mapping[str, Any]) -> str:
        """`m.login.terms`: submitting it is the acceptance."""
        return ""

    async def token(self, session: Session, auth: Mapping[str, Any]) -> str:
        """`m.login.registration_token`: the token has to be valid now; the use is counted with the account."""
        token = auth.get("token")
        if not isinstance(token, str):
            raise MatrixError(400, "M_MISSING_PARAM", "`token` is missing")
        try:
            valid = "\0" not in token and len(token) <= 64 and await self._registration.token_is_valid(token)
        except MatrixError:
            valid = False
        if not valid:
            raise MatrixError(401, "M_FORBIDDEN", "Unknown or used registration token")
        return token


def new_localpart(is_guest: bool) -> str:
    """A name for somebody who did not choose one: digits for guests, small letters for people."""
    alphabet, length = (string.digits, 14) if is_guest else (string.ascii_lowercase, 12)
    return "".join(secrets.choice(alphabet) for _ in range(length))


def _in_use() -> MatrixError:
    return MatrixError(400, "M_USER_IN_USE", "This user name is taken")
