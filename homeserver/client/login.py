"""`/login` (Client-Server API, "Login")."""

from typing import Any

import msgspec

from config.schema import Config
from federation.rules.errors import MatrixError
from homeserver.accounts.login import Logins, Wish
from homeserver.accounts.password_login import PasswordLogin
from homeserver.web.call import Call
from homeserver.web.router import Auth, Route


class Identifier(msgspec.Struct):
    """Who logs in; the fields depend on the type."""

    type: str
    user: str | None = None
    medium: str | None = None
    address: str | None = None


class LoginRequest(msgspec.Struct):
    """The body of `POST /login`; ``user``, ``medium`` and ``address`` are the older way to say who."""

    type: str
    identifier: Identifier | None = None
    user: str | None = None
    medium: str | None = None
    address: str | None = None
    password: str | None = None
    token: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    refresh_token: bool | None = False

    def wish(self) -> Wish:
        """The session asked for."""
        return Wish(self.device_id, self.initial_device_display_name, bool(self.refresh_token))


class LoginEndpoints:
    """Routes of `login.yaml`."""

    def __init__(self, logins: Logins, password_login: PasswordLogin, config: Config) -> None:
        self._logins = logins
        self._password_login = password_login
        self._config = config

    def routes(self) -> list[Route]:
        """The routes."""
        path = "/_matrix/client/v3/login"
        return [
            Route("GET", path, self.flows, Auth.NONE),
            Route("POST", path, self.login, Auth.NONE, limit="login.address"),
        ]

    def flows(self, call: Call) -> dict[str, Any]:
        """The ways to log in."""
        flows: list[dict[str, Any]] = []
        if self._config.password_config.enabled:
            flows.append({"type": "m.login.password"})
        flows.append({"type": "m.login.token", "get_login_token": True})
        return {"flows": flows}

    async def login(self, call: Call) -> dict[str, Any]:
        """Begin a session with a password or a login token."""
        request = call.json(LoginRequest)
        wish = request.wish()
        wish.check()
        if request.type == "m.login.password" and self._config.password_config.enabled:
            user_id = await self._by_password(request)
        elif request.type == "m.login.token":
            if request.token is None:
                raise MatrixError(400, "M_MISSING_PARAM", "`token` is missing")
            user_id = await self._logins.take_login_token(request.token)
        else:
            raise MatrixError(400, "M_UNKNOWN", "This server does not know that login type")
        answer = await self._logins.begin(user_id, wish)
        answer["home_server"] = self._config.server_name
        if self._config.public_baseurl is not None:
            answer["well_known"] = {"m.homeserver": {"base_url": self._config.public_baseurl}}
        return answer

    async def _by_password(self, request: LoginRequest) -> str:
        if request.password is None:
            raise MatrixError(400, "M_MISSING_PARAM", "`password` is missing")
        who = request.identifier or _older_identifier(request)
        if who.type == "m.id.user" and who.user is not None:
            return await self._password_login.by_user(who.user, request.password)
        if who.type == "m.id.thirdparty" and who.medium is not None and who.address is not None:
            return await self._password_login.by_threepid(who.medium, who.address, request.password)
        if who.type in ("m.id.user", "m.id.thirdparty"):
            raise MatrixError(400, "M_MISSING_PARAM", "The identifier is not complete")
        raise MatrixError(400, "M_UNKNOWN", "This server does not know that identifier type")


def _older_identifier(request: LoginRequest) -> Identifier:
    if request.user is not None:
        return Identifier("m.id.user", user=request.user)
    if request.medium is not None:
        return Identifier("m.id.thirdparty", medium=request.medium, address=request.address)
    raise MatrixError(400, "M_MISSING_PARAM", "`identifier` is missing")
