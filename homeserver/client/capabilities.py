"""`/capabilities` (Client-Server API, "Capabilities negotiation")."""

from typing import Any

from config.schema import Config
from federation.rules.room_versions import ROOM_VERSIONS
from homeserver.web.call import Call
from homeserver.web.router import Auth, Route


class CapabilitiesEndpoints:
    """Routes of `capabilities.yaml`."""

    def __init__(self, config: Config) -> None:
        self._change_password = config.password_config.enabled
        self._room_versions = {
            "default": config.default_room_version,
            "available": dict.fromkeys(ROOM_VERSIONS, "stable"),
        }

    def routes(self) -> list[Route]:
        """The routes."""
        return [Route("GET", "/_matrix/client/v3/capabilities", self.capabilities, Auth.GUEST)]

    def capabilities(self, call: Call) -> dict[str, Any]:
        """What this server lets the caller do."""
        capabilities: dict[str, Any] = {
            "m.change_password": {"enabled": self._change_password},
            "m.room_versions": self._room_versions,
            "m.set_displayname": {"enabled": True},
            "m.set_avatar_url": {"enabled": True},
            "m.profile_fields": {"enabled": True},
            "m.3pid_changes": {"enabled": False},
            "m.get_login_token": {"enabled": self._change_password and not call.requester.is_guest},
            "m.forget_forced_upon_leave": {"enabled": False},
        }
        if call.requester.is_admin:
            capabilities["m.account_moderation"] = {"lock": True, "suspend": False}
        return {"capabilities": capabilities}
