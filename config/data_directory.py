"""The data directory: closed to others, used by one server at a time, home of secrets that the server makes."""

import fcntl
import os
import secrets
from pathlib import Path
from types import TracebackType

from config.errors import ConfigError

LOCK = "server.lock"
REGISTRATION_SECRET = "registration_shared_secret"


class DataDirectory:
    """A data directory that this process holds until ``release`` or its end (the kernel lets go even after SIGKILL)."""

    def __init__(self, path: Path) -> None:
        """Create it if needed (mode 0700) and take it. Raises ConfigError when it is another account's or in use."""
        self.path = path.absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_owner()
            self._lock = self._take()
        except OSError as problem:
            raise ConfigError(
                [f"{self.path} cannot be used as data directory: {problem.strerror}"]
            ) from problem

    def _check_owner(self) -> None:
        status = self.path.stat()
        if status.st_uid != os.geteuid():
            raise ConfigError(
                [
                    f"{self.path} belongs to user {status.st_uid}, and this is user {os.geteuid()}: "
                    "run folkmoot as the owner, or give the directory to this user with chown -R"
                ]
            )
        if status.st_mode & 0o067:  # a group may be let through, for the account of PostgreSQL, and no more
            self.path.chmod(0o700)

    def _take(self) -> int:
        file = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(file, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(file)
            raise ConfigError(
                [
                    f"{self.path} is in use by another server (process {holder}): stop it, or give another --data-dir"
                ]
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        return file

    def registration_secret(self) -> str:
        """The shared secret of ``/_synapse/admin/v1/register`` where none is configured; made when first asked for."""
        secret = read_registration_secret(self.path)
        if secret is None:
            secret = secrets.token_hex(32)
            write_private(self.path / REGISTRATION_SECRET, secret + "\n")
        return secret

    def release(self) -> None:
        """Let another server have it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> "DataDirectory":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def read_registration_secret(path: Path) -> str | None:
    """The secret that the server of this data directory made, or None."""
    try:
        return (path / REGISTRATION_SECRET).read_text("ascii").strip() or None
    except FileNotFoundError:
        return None


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(file, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)
