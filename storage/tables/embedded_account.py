"""Which account the embedded PostgreSQL runs under: ours, or an unprivileged one when we are root."""

import hashlib
import os
import pwd
import stat
import sys
from pathlib import Path
from typing import NamedTuple

# The range that systemd sets aside for accounts without a name (DynamicUser=).
FIRST_NAMELESS = 61184
NAMELESS = 4336


class Account(NamedTuple):
    """A uid and gid; -1 means the account that we run under already."""

    uid: int
    gid: int

    def command(self, program: Path, *arguments: str, paths: tuple[Path, ...]) -> list[str]:
        """The command line that runs ``program`` under this account, able to get at ``paths``."""
        launcher = str(Path(__file__).with_name("embedded_launch.py"))
        reach = any(needs_reach(self, path) for path in (program, *paths))
        settings = (str(os.getpid()), str(self.uid), str(self.gid), str(int(reach)))
        return [sys.executable, "-I", "-S", launcher, *settings, str(program), *arguments]

    def own(self, path: Path) -> None:
        """Make this account the owner of ``path`` and of all below it."""
        if self.uid < 0:
            return
        os.chown(path, self.uid, self.gid, follow_symlinks=False)
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(os.path.join(folder, name), self.uid, self.gid, follow_symlinks=False)


OURS = Account(-1, -1)


def cluster_account(data_dir: Path, cluster: Path) -> Account:
    """The account for the cluster of ``data_dir``: its owner; else ``folkmoot``; else one without a name, of its own.

    One without a name shares nothing with other programs, as ``nobody`` would.
    """
    if os.geteuid() != 0:
        return OURS
    if cluster.exists() and cluster.stat().st_uid != 0:
        return Account(cluster.stat().st_uid, cluster.stat().st_gid)
    try:
        entry = pwd.getpwnam("folkmoot")
        return Account(entry.pw_uid, entry.pw_gid)
    except KeyError:
        digest = hashlib.sha256(os.fsencode(data_dir)).digest()
        uid = FIRST_NAMELESS + int.from_bytes(digest[:4]) % NAMELESS
        return Account(uid, uid) if _possible(data_dir, uid) else named_account(OURS)


def named_account(account: Account) -> Account:
    """``account`` if it has a name, else ``nobody``: initdb insists on a name, PostgreSQL itself does not."""
    try:
        entry = pwd.getpwuid(account.uid) if account.uid > 0 else pwd.getpwnam("nobody")
    except KeyError:
        entry = pwd.getpwnam("nobody")
    return Account(entry.pw_uid, entry.pw_gid)


def needs_reach(account: Account, path: Path) -> bool:
    """Whether a directory above ``path`` keeps this account out."""
    if account.uid < 0:
        return False
    return any(not _may_pass(account, folder.stat()) for folder in path.parents)


def _may_pass(account: Account, status: os.stat_result) -> bool:
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _possible(folder: Path, uid: int) -> bool:
    """A container may know only a few uids; the others cannot own files."""
    probe = folder / ".account-probe"
    try:
        probe.touch(0o600)
        os.chown(probe, uid, uid)
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True
