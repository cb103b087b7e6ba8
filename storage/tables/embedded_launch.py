"""Becomes one program of PostgreSQL: started as a script, gives up root, ties itself to its parent, and execs.

    python embedded_launch.py PARENT UID GID REACH PROGRAM ARGUMENT…

PostgreSQL refuses to run as root, and a program that is started between fork and exec of a process with threads is a
gamble; hence this stepping stone. It uses the standard library alone, for ``python -I -S``. UID -1 keeps the
account. With REACH 1 the program keeps the one capability of passing directories that its account may not enter (a
home directory of root): see ``embedded_account``.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2


def main(arguments: list[str]) -> None:
    """Do what the page says; returns only by an exception."""
    parent, uid, gid, reach = (int(text) for text in arguments[:4])
    command = arguments[4:]
    libc = ctypes.CDLL(None, use_errno=True)
    if uid >= 0:
        _change_account(libc, uid, gid, bool(reach))
    if sys.platform == "linux":
        # After setuid, which clears it. SIGINT is PostgreSQL's word for a fast, clean shutdown.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the server that started PostgreSQL is gone")
    os.umask(0o077)
    os.execv(command[0], command)


def _change_account(libc: ctypes.CDLL, uid: int, gid: int, reach: bool) -> None:
    capability = _reach_capability() if reach else None
    if capability is not None:
        libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if capability is not None:
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        mask = 1 << capability
        sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
        if libc.capset(header, sets) or libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0):
            sys.exit(f"cannot keep a capability: {os.strerror(ctypes.get_errno())}")


def _reach_capability() -> int | None:
    """Reading past permissions is the smaller one; containers often have only the greater."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("CapEff:"))
    effective = int(line.split()[1], 16)
    return next((bit for bit in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE) if effective >> bit & 1), None)


if __name__ == "__main__":
    main(sys.argv[1:])
