"""The endpoints of accounts and sessions together, for whoever wires the server."""

from collections.abc import Callable

from config.schema import Config
from homeserver.accounts.assembly import Accounts
from homeserver.accounts.password_login import PasswordLogin
from homeserver.client.login import LoginEndpoints
from homeserver.client.logout import LogoutEndpoints
from homeserver.client.refresh import RefreshEndpoints
from homeserver.client.registration import RegistrationEndpoints
from homeserver.client.whoami import WhoamiEndpoints
from homeserver.web.limits import Limits
from homeserver.web.router import Route
from storage.tables.database import Database


def account_endpoints(
    accounts: Accounts, database: Database, config: Config, limits: Limits, now_ms: Callable[[], int]
) -> list[Route]:
    """Routes that need nothing but accounts."""
    interactive_auth = accounts.interactive_auth
    password_login = PasswordLogin(database, accounts.passwords, limits, config.server_name)
    return [
        *RegistrationEndpoints(accounts.registration, interactive_auth, limits, config).routes(),
        *LoginEndpoints(accounts.logins, password_login, config).routes(),
        *LogoutEndpoints(accounts.logins).routes(),
        *RefreshEndpoints(accounts.logins).routes(),
        *WhoamiEndpoints().routes(),
    ]
