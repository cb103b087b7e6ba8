"""The endpoints of accounts and sessions together, for whoever wires the server."""

from collections.abc import Callable

from config.schema import Config
from homeserver.accounts.assembly import Accounts
from homeserver.accounts.password_login import PasswordLogin
from homeserver.client.account_deactivation import DeactivationEndpoints
from homeserver.client.admin import AdminEndpoints
from homeserver.client.administrative_contact import ThreepidEndpoints
from homeserver.client.auth_fallback import AuthFallbackEndpoints
from homeserver.client.capabilities import CapabilitiesEndpoints
from homeserver.client.device_management import DeviceEndpoints
from homeserver.client.login import LoginEndpoints
from homeserver.client.login_token import LoginTokenEndpoints
from homeserver.client.logout import LogoutEndpoints
from homeserver.client.openid import OpenIdEndpoints
from homeserver.client.password_management import PasswordEndpoints
from homeserver.client.profile import ProfileEndpoints, RemoteProfiles
from homeserver.client.refresh import RefreshEndpoints
from homeserver.client.registration import RegistrationEndpoints
from homeserver.client.registration_tokens import RegistrationTokenEndpoints
from homeserver.client.support import SupportEndpoints
from homeserver.client.wellknown import WellKnownEndpoints
from homeserver.client.whoami import WhoamiEndpoints
from homeserver.web.limits import Limits
from homeserver.web.router import Route
from storage.tables.database import Database


def account_endpoints(
    accounts: Accounts, database: Database, config: Config, limits: Limits, now_ms: Callable[[], int],
    remote_profiles: RemoteProfiles | None = None,
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
        *WellKnownEndpoints(config).routes(),
        *SupportEndpoints(config).routes(),
        *CapabilitiesEndpoints(config).routes(),
        *RegistrationTokenEndpoints(accounts.registration).routes(),
        *LoginTokenEndpoints(accounts.logins, interactive_auth).routes(),
        *PasswordEndpoints(accounts.deactivation, accounts.passwords, interactive_auth, config).routes(),
        *DeactivationEndpoints(accounts.deactivation, interactive_auth).routes(),
        *DeviceEndpoints(accounts.devices, interactive_auth).routes(),
        *ThreepidEndpoints(database).routes(),
        *ProfileEndpoints(accounts.profiles, config.server_name, remote_profiles).routes(),
        *OpenIdEndpoints(database, config.server_name, now_ms).routes(),
        *AdminEndpoints(database, accounts.devices, accounts.deactivation, config.server_name).routes(),
        *AuthFallbackEndpoints(interactive_auth, config).routes(),
    ]
