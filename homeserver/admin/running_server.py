"""Asks the running server of a data directory: what commands do that need it. Blocks."""

import json
from http.client import HTTPException
from pathlib import Path
from typing import Any

from config.schema import Config
from homeserver.admin.operator_socket import PREFIX, short_path
from homeserver.admin.unix_connection import UnixConnection

TIMEOUT_SECONDS = 60.0
MAX_ANSWER = 64 * 1024 * 1024


class NotAnswered(Exception):
    """The server is not there, or refuses; the message says why and what to do."""


def ask(config: Config, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The answer of the server of ``config`` to an operator's request; ``path`` follows the prefix. Raises NotAnswered."""
    directory = Path(config.data_dir)
    try:
        with short_path(directory) as socket_path:
            connection = UnixConnection(socket_path, TIMEOUT_SECONDS)
            try:
                headers = {"Content-Type": "application/json"}
                connection.request(method, PREFIX + path, None if body is None else json.dumps(body), headers)
                response = connection.getresponse()
                answer = json.loads(response.read(MAX_ANSWER))
            finally:
                connection.close()
    except (OSError, HTTPException, ValueError) as problem:
        raise NotAnswered(
            f"No server answers in {directory} ({problem}): is it running, with this data directory?"
        ) from problem
    if response.status != 200:
        if answer.get("errcode") == "M_UNRECOGNIZED":
            raise NotAnswered("The running server does not federate, or is of another version")
        raise NotAnswered(str(answer.get("error", response.status)))
    return dict(answer)
