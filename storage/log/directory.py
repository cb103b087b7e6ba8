"""Is this a directory in which a log may live? Owner, file system, and nobody else at work in it."""

import fcntl
import os
from pathlib import Path
from typing import Final

from storage.log.errors import LogRefused

NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs3", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "afs", "ceph", "9p", "glusterfs"}
    | {"lustre", "beegfs", "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse"}
)
LOCK_FILE: Final = "folkmoot.lock"


def check_directory(path: Path, mounts: str | None = None) -> None:
    """Create ``path`` (mode 0700) if needed and refuse what would endanger the data.

    ``mounts`` is the text of ``/proc/self/mountinfo`` (read when ``None``). Raises :class:`LogRefused`.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = path.stat().st_uid
    if owner != os.geteuid():
        raise LogRefused(
            f"{path} belongs to user {owner} and this process runs as user {os.geteuid()}: "
            "run the server as the directory's owner, or change the owner of the directory"
        )
    kind = file_system(path, mounts if mounts is not None else _mounts())
    if kind in NETWORK_FILE_SYSTEMS:
        raise LogRefused(
            f"{path} is on a network file system ({kind}), on which the log's memory map and locks are not "
            "safe: choose a directory on a local disk"
        )


def _mounts() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text()
    except OSError:
        return ""


def file_system(path: Path, mounts: str) -> str:
    """The type of the file system that holds ``path``, ``""`` when unknown.

    ``mounts`` as in proc(5): the mount point is field 5, the type follows the lone hyphen.
    """
    target = str(path.resolve()) + "/"
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split()
        if "-" not in fields or len(fields) < 7:
            continue
        point = fields[4].encode().decode("unicode_escape").rstrip("/") + "/"
        # Later lines are mounted over earlier ones.
        if target.startswith(point) and len(point) >= best:
            best, kind = len(point), fields[fields.index("-") + 1]
    return kind


class DirectoryLock:
    """Holds the directory for this process; released by the kernel even after SIGKILL.

    Raises :class:`LogRefused` when another process (or another log of this one) holds it.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path / LOCK_FILE, "a+")  # noqa: SIM115 (held until release)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            holder = self._file.read(20).strip()
            self._file.close()
            raise LogRefused(
                f"{path} is in use by another server (process {holder or 'unknown'}): stop that one first"
            ) from error
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        """Let others in."""
        self._file.close()
