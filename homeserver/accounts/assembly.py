"""The services of accounts, made and introduced to each other."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from config.schema import Config
from homeserver.accounts.deactivation import Deactivation
from homeserver.accounts.devices import Devices
from homeserver.accounts.interactive_auth import DUMMY, REGISTRATION_TOKEN, TERMS, Sessions
from homeserver.accounts.login import Logins
from homeserver.accounts.passwords import Passwords
from homeserver.accounts.profiles import Profiles
from homeserver.accounts.registration import Registration, RegistrationStages
from homeserver.accounts.sessions import Authenticator
from homeserver.accounts.user_interactive import InteractiveAuth
from homeserver.web.limits import Limits
from storage.tables.database import Database


@dataclass(frozen=True, slots=True)
class Accounts:
    """All services of this package, ready to be handed to endpoints."""

    authenticator: Authenticator
    devices: Devices
    logins: Logins
    passwords: Passwords
    interactive_auth: InteractiveAuth
    registration: Registration
    deactivation: Deactivation
    profiles: Profiles

    async def stop(self) -> None:
        """Write down what is still in memory and end the threads."""
        await self.authenticator.stop()
        self.passwords.stop()


def assemble(
    database: Database,
    reactor: Any,
    config: Config,
    limits: Limits,
    now_ms: Callable[[], int],
    passwords: Passwords | None = None,
) -> Accounts:
    """Make the services. ``reactor`` is the real one: it gives time and threads."""
    passwords = passwords or Passwords(reactor)
    authenticator = Authenticator(database, reactor, now_ms)
    devices = Devices(database, authenticator)
    logins = Logins(database, authenticator, devices, config, now_ms)
    sessions = Sessions(
        reactor.seconds, lambda: secrets.token_urlsafe(24), lifetime=config.ui_auth.session_timeout / 1000
    )
    interactive_auth = InteractiveAuth(database, passwords, sessions, limits, config.server_name)
    registration = Registration(database, passwords, logins, devices, config, now_ms)
    stages = RegistrationStages(registration)
    interactive_auth.checks[DUMMY] = stages.dummy
    interactive_auth.checks[TERMS] = stages.terms
    interactive_auth.checks[REGISTRATION_TOKEN] = stages.token
    profiles = Profiles(database)
    deactivation = Deactivation(database, authenticator, devices, sessions)
    return Accounts(
        authenticator, devices, logins, passwords, interactive_auth, registration, deactivation, profiles
    )
