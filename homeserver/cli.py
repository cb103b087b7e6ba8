"""The command ``folkmoot``: reads flags and configuration, then calls what does the work."""

import argparse
import gc
import getpass
import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from config.errors import ConfigError

COLLECT_AFTER = 10_000
"""Objects made and not yet freed, after which Python looks for unreachable cycles (its default is 700)."""


class CommandFailed(Exception):
    """A command could not do its work; the message says why and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0 done, 1 failed, 2 wrong usage or configuration."""
    options = parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except ConfigError as problem:
        return _fail(options, problem.problems, 2)
    except CommandFailed as problem:
        return _fail(options, [str(problem)], 1)
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """All commands and their flags."""
    top = argparse.ArgumentParser(prog="folkmoot", description="A light, fast, federated Matrix homeserver.")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    run = _command(commands, "run", _run, "run the server until it is told to stop")
    run.add_argument(
        "--listen", action="append", metavar="HOST:PORT", help="answer here; repeatable; IPv6 as [::1]:8008"
    )
    run.add_argument("--open-registration", action="store_true", help="let anybody register an account")

    _with_json(
        _command(commands, "check-config", _check_config, "check the configuration and say what is wrong")
    )

    register = _command(commands, "register-user", _register_user, "create an account on the running server")
    register.add_argument("localpart", help="the name before the colon: alice for @alice:example.org")
    register.add_argument(
        "--password-file", type=Path, metavar="FILE", help="read the password here instead of asking"
    )
    register.add_argument("--admin", action="store_true", help="make it an administrator")
    register.add_argument("--url", help="where the server answers, if the configuration does not say")
    _with_json(register)

    log = _command(commands, "check-log", _check_log, "verify the log (the server must be stopped)")
    log.add_argument("--rebuild", action="store_true", help="rebuild every index from the log")
    _with_json(log)

    epoch = _command(
        commands, "new-epoch", _new_epoch, "let every client sync from the beginning, after the disk was set back"
    )
    epoch.add_argument(
        "--accept-mismatch", action="store_true", help="and go on with tables of another time than the log"
    )

    for name, action, text in (
        ("dump-database", _dump_database, "write the PostgreSQL tables to a file"),
        ("load-database", _load_database, "fill a new database from such a file"),
    ):
        _command(commands, name, action, text).add_argument("file", type=Path)

    record = _command(commands, "well-known", _well_known, "print this server's signed well-known record")
    _with_json(record)
    forget = _below(record, "forget", _forget_pin, "forget what was pinned of another server's record")
    forget.add_argument("name", help="the other server's name")

    peers = _command(commands, "peers", _peers, "how sending to every other server goes")
    _with_json(peers)
    for name, action, text in (
        ("show", _show_peer, "all that is known of one server"),
        ("retry", _retry_peer, "try a server again now"),
    ):
        _below(peers, name, action, text).add_argument("name", help="the other server's name")

    resolve = _command(commands, "resolve", _resolve, "find another server, and tell every step")
    resolve.add_argument("name", help="a server name: what follows the colon in user IDs")
    _with_json(resolve)

    rooms = commands.add_parser("room", help="explain a room, delete it, keep people out of it")
    below = rooms.add_subparsers(metavar="COMMAND", required=True)
    text = "let local members leave a room and remove everything of it from this server"
    delete = _command(below, "delete", _delete_room, text)
    delete.add_argument("--block", metavar="REASON", help="keep people out of it from now on, and why")
    delete.add_argument("--no-wait", action="store_true", help="do not wait until it is done")
    block = _command(below, "block", _block_room, "keep people of this server out of a room")
    block.add_argument("--reason", default="", help="why")
    text = "tell what is known of a room, why a user is not joined, what became of an event"
    explain = _command(below, "explain", _explain_room, text)
    explain.add_argument("--user", metavar="USER", help="a user's membership: which event decided it, and what did not help")
    explain.add_argument("--event", metavar="EVENT", help="what became of an event, and why")
    for command in (explain, delete, block, _command(below, "unblock", _unblock_room, "let them in again")):
        command.add_argument("room", help="the room's id")
        _with_json(command)

    version = commands.add_parser("version", help="print the version")
    version.set_defaults(command=_version)
    _with_json(version)
    return top


def _command(commands: Any, name: str, action: Any, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.set_defaults(command=action)
    command.add_argument(
        "--config", action="append", type=Path, default=[], metavar="FILE", help="repeatable; later wins"
    )
    command.add_argument("--data-dir", metavar="DIR", help="default: ./folkmoot-data")
    command.add_argument(
        "--server-name", metavar="NAME", help="what follows the colon in user IDs; default: localhost"
    )
    return command


def _below(command: argparse.ArgumentParser, name: str, action: Any, text: str) -> argparse.ArgumentParser:
    """A command of a command. It takes the same flags, in either place."""
    if command._subparsers is None:
        command.add_subparsers(metavar="COMMAND", required=False)
    assert command._subparsers is not None
    (commands,) = [found for found in command._subparsers._group_actions if isinstance(found, argparse._SubParsersAction)]
    below = _command(commands, name, action, text)
    _with_json(below)
    for flag in below._actions:
        if flag.dest != "help":
            flag.default = argparse.SUPPRESS  # a default here would undo a flag given before the name
    return below


def _with_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="answer in JSON, for scripts")


def load(options: argparse.Namespace) -> Any:
    """The ``Config`` that files, environment and flags give together."""
    from config.load import load_config

    flags: dict[str, Any] = {}
    if options.data_dir is not None:
        flags["data_dir"] = options.data_dir
    if options.server_name is not None:
        flags["server_name"] = options.server_name
    if getattr(options, "open_registration", False):
        flags |= {"enable_registration": True, "enable_registration_without_verification": True}
    if getattr(options, "listen", None):
        flags["listeners"] = [listen_address(text) for text in options.listen]
    return load_config(options.config, flags=flags)


def listen_address(text: str) -> dict[str, Any]:
    """``host:port``, ``[::1]:port`` or ``:port`` (all addresses) as a listener. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not port.isascii() or not port.isdigit() or (":" in bare and bare == host):
        raise ConfigError([f"--listen {text}: write host:port, like 127.0.0.1:8008 or [::1]:8008"])
    return {"port": int(port), "bind_addresses": [bare] if bare else ["0.0.0.0", "::"]}


def _run(options: argparse.Namespace) -> int:
    config = load(options)
    from homeserver.process import run

    # Requests leave little in cycles. The program itself need not be searched for them again and again.
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 10, 10)
    return run(config)


def _check_config(options: argparse.Namespace) -> int:
    config = load(options)
    tell(
        options,
        f"The configuration is fine: {config.server_name}",
        server_name=config.server_name,
        problems=[],
    )
    return 0


def _register_user(options: argparse.Namespace) -> int:
    config = load(options)
    if options.password_file is not None:
        try:
            password = options.password_file.read_text("utf-8").rstrip("\r\n")
        except OSError as problem:
            raise CommandFailed(f"{options.password_file} cannot be read: {problem.strerror}") from problem
    else:
        password = getpass.getpass("Password: ")
        if password != getpass.getpass("Again: "):
            raise CommandFailed("The two passwords differ; nothing was done")
    from homeserver.admin import shared_secret

    try:
        user_id = shared_secret.register(
            config, options.localpart, password, admin=options.admin, url=options.url
        )
    except shared_secret.RegistrationFailed as problem:
        raise CommandFailed(str(problem)) from problem
    tell(options, f"Created {user_id}", user_id=user_id)
    return 0


def _new_epoch(options: argparse.Namespace) -> int:
    config = load(options)
    from config.data_directory import DataDirectory

    with DataDirectory(Path(config.data_dir)) as directory:
        from storage.log.env import renew_epoch
        from storage.log.errors import LogRefused

        if not (directory.path / "log").is_dir():
            raise CommandFailed(f"There is no log in {directory.path}")
        try:
            epoch = renew_epoch(directory.path / "log", accept_mismatch=options.accept_mismatch)
        except LogRefused as problem:
            raise CommandFailed(str(problem)) from problem
    print(f"The epoch is {epoch} now. Every client syncs from the beginning.")
    return 0


def _check_log(options: argparse.Namespace) -> int:
    config = load(options)
    from config.data_directory import DataDirectory

    with DataDirectory(Path(config.data_dir)) as directory:
        from homeserver.admin.log_inspection import inspect
        from storage.log import check

        def progress(table: str, rows: int) -> None:
            if not options.json and sys.stderr.isatty():
                print(f"\r{table}: {rows} rows\033[K", end="", file=sys.stderr, flush=True)

        report = check.check_directory_log(directory.path / "log", options.rebuild, inspect, progress)
    problems = [str(problem) for problem in report.problems]
    tell(options, "\n".join([*problems, report.summary()]), problems=problems, summary=report.summary())
    return 1 if problems else 0


def _dump_database(options: argparse.Namespace) -> int:
    return _transfer(options, "dump")


def _load_database(options: argparse.Namespace) -> int:
    return _transfer(options, "load")


def _transfer(options: argparse.Namespace, direction: str) -> int:
    config = load(options)
    from config.data_directory import DataDirectory
    from storage.tables import transfer
    from storage.tables.errors import DatabaseRefused

    work = transfer.dump if direction == "dump" else transfer.load
    try:
        with DataDirectory(Path(config.data_dir)) as directory:
            work(config.database, directory.path, options.file)
    except DatabaseRefused as problem:
        raise CommandFailed(str(problem)) from problem
    return 0


def _well_known(options: argparse.Namespace) -> int:
    config = load(options)
    from homeserver.admin import well_known_record
    from homeserver.signing_key_file import SIGNING_KEY, signing_keys_of
    from homeserver.start import wall_clock_ms

    directory = Path(config.data_dir)
    if not config.signing_key_path and not (directory / SIGNING_KEY).exists():
        raise CommandFailed(f"No signing key in {directory}: start the server first (it makes one), or say --data-dir")
    try:
        record = well_known_record.record_of(config, signing_keys_of(config, directory), wall_clock_ms)
    except well_known_record.NoRecord as problem:
        raise CommandFailed(str(problem)) from problem
    print(well_known_record.as_document(record, compact=options.json))
    return 0


def _forget_pin(options: argparse.Namespace) -> int:
    found = _ask(options, "DELETE", f"/pins/{_segment(options.name)}")
    tell(options, f"The record of {found['server_name']} is judged as if it had never been seen", **found)
    return 0


def _peers(options: argparse.Namespace) -> int:
    found = _ask(options, "GET", "/peers")
    from homeserver.admin import peer_text

    tell(options, peer_text.table(found["peers"]), **found)
    return 0


def _show_peer(options: argparse.Namespace) -> int:
    found = _ask(options, "GET", f"/peers/{_segment(options.name)}")
    from homeserver.admin import peer_text

    tell(options, peer_text.detail(found), **found)
    return 0


def _retry_peer(options: argparse.Namespace) -> int:
    _ask(options, "POST", f"/peers/{_segment(options.name)}/retry")
    tell(options, f"{options.name} is tried now; folkmoot peers show {options.name} tells how it went", server=options.name)
    return 0


def _delete_room(options: argparse.Namespace) -> int:
    path = f"/rooms/{_segment(options.room)}"
    found = _ask(options, "DELETE", path, {} if options.block is None else {"block": options.block})
    while not options.no_wait and found["phase"] != "done":
        if not options.json and sys.stderr.isatty():
            print(f"\r{found['phase']}: {found['rows_removed']} rows\033[K", end="", file=sys.stderr, flush=True)
        time.sleep(0.2)
        found = _ask(options, "GET", f"{path}/deletion")
    done = "is deleted" if found["phase"] == "done" else "is being deleted"
    tell(
        options,
        f"{options.room} {done}: {found['members_left']} members left, {found['rows_removed']} rows removed",
        **found,
    )
    return 0


def _block_room(options: argparse.Namespace) -> int:
    _ask(options, "PUT", f"/rooms/{_segment(options.room)}/block", {"reason": options.reason})
    tell(options, f"Nobody of this server can enter {options.room}", room_id=options.room)
    return 0


def _unblock_room(options: argparse.Namespace) -> int:
    _ask(options, "DELETE", f"/rooms/{_segment(options.room)}/block")
    tell(options, f"{options.room} can be entered again", room_id=options.room)
    return 0


def _explain_room(options: argparse.Namespace) -> int:
    config = load(options)
    from federation.rules.ids import is_valid_room_id, is_valid_user_id
    from homeserver.admin import room_explanation, room_text
    from storage.log.env import reading
    from storage.log.errors import LogRefused
    from storage.log.state_map import MissingNode

    if not is_valid_room_id(options.room):
        raise CommandFailed(f"{options.room} is not a room id")
    if options.user is not None and not is_valid_user_id(options.user):
        raise CommandFailed(f"{options.user} is not a user id")
    try:
        with reading(Path(config.data_dir) / "log") as view:
            facts = room_explanation.explain(view, options.room, options.user, options.event)
    except LogRefused as problem:
        raise CommandFailed(str(problem)) from problem
    except (MissingNode, ValueError) as problem:
        raise CommandFailed(f"What the log has of {options.room} is damaged ({problem}): see folkmoot check-log") from problem
    tell(options, room_text.text(facts), **facts)
    return 0 if facts["room"] is not None else 1


def _ask(options: argparse.Namespace, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the running server answers to an operator."""
    config = load(options)
    from homeserver.admin.running_server import NotAnswered, ask

    try:
        return ask(config, method, path, body)
    except NotAnswered as problem:
        raise CommandFailed(str(problem)) from problem


def _segment(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def _resolve(options: argparse.Namespace) -> int:
    config = load(options)
    from homeserver.admin import resolve_server
    from homeserver.start import wall_clock_ms

    found = resolve_server.resolve(config, options.name, wall_clock_ms)
    tell(options, resolve_server.as_text(found), **resolve_server.as_facts(found))
    return 0 if found.failure is None else 1


def _version(options: argparse.Namespace) -> int:
    version = metadata.version("folkmoot")
    tell(options, f"folkmoot {version}", version=version)
    return 0


def tell(options: argparse.Namespace, sentence: str, **facts: Any) -> None:
    """The outcome on stdout: a sentence for people, or the facts for scripts."""
    print(json.dumps(facts) if getattr(options, "json", False) else sentence)


def _fail(options: argparse.Namespace, problems: list[str], status: int) -> int:
    if getattr(options, "json", False):
        print(json.dumps({"problems": problems}))
    else:
        for problem in problems:
            print(f"folkmoot: {problem}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
