"""`/register` and what belongs to it (Client-Server API, "Account registration")."""

from typing import Any

import msgspec

from config.schema import Config
from federation.rules.errors import MatrixError
from homeserver.accounts.interactive_auth import REGISTRATION_TOKEN, TERMS, Session
from homeserver.accounts.login import Wish
from homeserver.accounts.passwords import check_new_password
from homeserver.accounts.registration import NewAccount, Registration
from homeserver.accounts.user_interactive import InteractiveAuth
from homeserver.web.call import Answer, Call
from homeserver.web.limits import Limits
from homeserver.web.router import Auth, Route

OPERATION = "register"


class RegisterRequest(msgspec.Struct):
    """The body of `POST /register`."""

    username: str | None = None
    password: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    inhibit_login: bool | None = False
    refresh_token: bool | None = False
    guest_access_token: str | None = None
    type: str | None = None

    def wish(self) -> Wish | None:
        """The session that goes with the account, if any."""
        if self.inhibit_login:
            return None
        return Wish(self.device_id, self.initial_device_display_name, bool(self.refresh_token))


class Remembered(msgspec.Struct):
    """What a session keeps of the request it was begun with: never the password, only its hash."""

    localpart: str | None
    password_hash: str | None
    wish: Wish | None
    upgrades_guest: bool


class RegistrationEndpoints:
    """Routes of `registration.yaml`."""

    def __init__(
        self, registration: Registration, interactive_auth: InteractiveAuth, limits: Limits, config: Config
    ) -> None:
        self._registration = registration
        self._interactive_auth = interactive_auth
        self._limits = limits
        self._config = config

    def routes(self) -> list[Route]:
        """The routes."""
        prefix = "/_matrix/client/v3/register"
        return [
            Route("POST", prefix, self.register, Auth.NONE),
            Route("GET", f"{prefix}/available", self.available, Auth.NONE, limit="registration_available"),
            Route("POST", f"{prefix}/email/requestToken", _no_threepids, Auth.NONE),
            Route("POST", f"{prefix}/msisdn/requestToken", _no_threepids, Auth.NONE),
        ]

    async def register(self, call: Call) -> dict[str, Any] | Answer:
        """Make an account: for a person after the stages, for a guest at once."""
        kind = call.query("kind", "user")
        if kind == "guest":
            return await self._register_guest(call)
        if kind != "user":
            raise MatrixError(400, "M_INVALID_PARAM", "`kind` has to be user or guest")
        request = call.json(RegisterRequest)
        if request.type == "m.login.application_service":
            raise MatrixError(403, "M_FORBIDDEN", "Only application services can register that way")
        body = call.json_object()
        flows = await self._registration.flows()
        replay = self._replay(body)
        localpart = None
        if replay:
            pass
        elif request.guest_access_token is not None:
            localpart = await self._registration.check_guest(request.username, request.guest_access_token)
        elif request.username is not None:
            localpart = await self._registration.check_available(request.username)
        if request.password is not None:
            check_new_password(request.password, self._config.password_config.policy)
        wish = request.wish()
        if wish is not None:
            wish.check()

        async def remember(session: Session) -> None:
            if session.remembered is None and session.digest is not None and (request.username or request.password):
                session.remembered = await self._remembered(call, request, localpart)

        outcome = await self._interactive_auth.proceed(
            body, None, OPERATION, flows, self._params(flows), remember
        )
        if isinstance(outcome, Answer):
            return outcome
        if outcome.used:
            return await self._answer_again(outcome, wish)
        remembered = outcome.remembered or await self._remembered(call, request, localpart)
        self._interactive_auth.sessions.use(outcome)
        return await self._create(outcome, remembered)

    async def _create(self, session: Session, remembered: Remembered) -> dict[str, Any]:
        try:
            answer = await self._registration.create(
                NewAccount(
                    localpart=remembered.localpart,
                    password_hash=remembered.password_hash,
                    wish=remembered.wish,
                    registration_token=session.values.get(REGISTRATION_TOKEN),
                    upgrades_guest=remembered.upgrades_guest,
                )
            )
        except Exception:
            session.used = False  # nothing was made: the stages still count
            raise
        session.result = answer["user_id"]
        return answer

    def _replay(self, body: dict[str, Any]) -> bool:
        """The request may be the repetition of one whose answer got lost: its user name is taken by itself then."""
        auth = body.get("auth")
        session_id = auth.get("session") if isinstance(auth, dict) else None
        session = self._interactive_auth.sessions.find(session_id) if isinstance(session_id, str) else None
        return session is not None and session.used

    async def _answer_again(self, session: Session, wish: Wish | None) -> dict[str, Any]:
        """The same account once more, with a session of its own when one is wanted."""
        if wish is None:
            return {"user_id": session.result, "home_server": self._config.server_name}
        answer = await self._registration.log_in_again(session.result, wish)
        return {**answer, "home_server": self._config.server_name}

    async def _remembered(self, call: Call, request: RegisterRequest, localpart: str | None) -> Remembered:
        self._limits.take("registration", call.address)
        hashed = None if request.password is None else await self._registration.hash_password(request.password)
        return Remembered(localpart, hashed, request.wish(), request.guest_access_token is not None)

    async def _register_guest(self, call: Call) -> dict[str, Any]:
        if not self._config.allow_guest_access:
            raise MatrixError(403, "M_FORBIDDEN", "Guest access has been disabled on this server")
        name = call.json(RegisterRequest).initial_device_display_name
        self._limits.take("registration", call.address)
        wish = Wish(display_name=name)
        wish.check()
        return await self._registration.create(NewAccount(wish=wish, is_guest=True))

    def _params(self, flows: tuple[tuple[str, ...], ...]) -> dict[str, Any]:
        terms = self._config.terms
        if terms is None or not any(TERMS in flow for flow in flows):
            return {}
        document = {"version": terms.version, terms.language: {"name": terms.name, "url": terms.url}}
        return {TERMS: {"policies": {terms.policy_name: document}}}

    async def available(self, call: Call) -> dict[str, Any]:
        """Whether a user name could be registered now; the refusals are those of `/register`."""
        if not self._config.enable_registration:
            await self._registration.flows()
        username = call.query("username")
        if username is None:
            raise MatrixError(400, "M_MISSING_PARAM", "`username` is missing")
        await self._registration.check_available(username)
        return {"available": True}


def _no_threepids(call: Call) -> dict[str, Any]:
    """This server sends no mail and no text messages."""
    raise MatrixError(403, "M_THREEPID_DENIED", "This server does not take e-mail addresses or phone numbers")
