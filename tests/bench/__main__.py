"""``python -m tests.bench``: what an operation costs, on this machine, with durable commits.

Starts the server on a fresh directory, runs every row, and the same against Synapse when ``--synapse VENV``
names a virtual environment that has ``matrix-synapse[postgres]``. The clients and the other servers are this process;
only what the server's processes use counts.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from tests.bench import rows_basic, rows_federation, rows_idle, rows_keys, rows_live
from tests.bench.federating import FederatingFolkmoot, FederatingSynapse
from tests.bench.measure import Row
from tests.bench.neighbours import Neighbours
from tests.bench.process_tree import rss_bytes
from tests.bench.report import ratios, table
from tests.bench.servers import Folkmoot, Server, Synapse, free_port

CLIENTS: dict[str, Callable[[Server, float], Awaitable[list[Row]]]] = {
    "whoami": rows_basic.whoami,
    "send": rows_basic.send,
    "live": rows_live.live,
    "websocket": rows_live.live_websocket,
    "sync": rows_basic.initial_sync,
    "messages": rows_basic.messages,
    "to-device": rows_live.to_device,
    "keys": rows_keys.keys,
    "join": rows_basic.join,
    "idle": rows_idle.idle,
    "restart": rows_idle.restart,
}
FEDERATION = rows_federation.ROWS
GROUPS = {"clients": list(CLIENTS), "federation": list(FEDERATION)}


async def run(server: Server, work: Mapping[str, Callable[[], Awaitable[list[Row]]]]) -> tuple[list[Row], int]:
    """All rows on one server, and how many could not be measured."""
    rows: list[Row] = []
    failed = 0
    first = Row("start on an empty directory", 1)
    try:
        first.notes["seconds to ready"] = first.seconds = await server.start()
        await asyncio.sleep(1)
        first.notes["RSS of the server process, MB"] = rss_bytes(server.roots[0]) / 1e6
        rows.append(first)
        for name, measured in work.items():
            print(f"{server.name}: {name} ...", file=sys.stderr, flush=True)
            try:
                rows += await asyncio.wait_for(measured(), 1200)
            except Exception:
                failed += 1
                print(f"{server.name}: {name} failed\n{traceback.format_exc(limit=-3)}", file=sys.stderr)
    finally:
        server.stop()
    return rows, failed


async def run_clients(server: Server, names: list[str], scale: float) -> tuple[list[Row], int]:
    """Rows of the group ``clients``."""
    return await run(server, {name: partial(CLIENTS[name], server, scale) for name in names})


async def run_federation(
    server: FederatingFolkmoot | FederatingSynapse, resident: FederatingSynapse | None, names: list[str], scale: float
) -> tuple[list[Row], int]:
    """Rows of the group ``federation``; ``resident`` holds the room for the row ``join-held``."""
    async with Neighbours(server.directory) as neighbours:
        held = None
        try:
            if resident is not None and "join-held" in names:
                await resident.start()
                held = await rows_federation.hold(resident, neighbours, scale)
            side = rows_federation.Side(server, neighbours, held)
            return await run(server, {name: partial(FEDERATION[name], side, scale) for name in names})
        finally:
            if resident is not None:
                resident.stop()


def main() -> int:
    """Parse the arguments, run, print. Status 1 when a row could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--group", choices=list(GROUPS), help="only these rows; without it, all")
    every = [name for group in GROUPS.values() for name in group]
    parser.add_argument("--only", action="append", choices=every, help="only this row (may be repeated)")
    parser.add_argument("--synapse", type=Path, metavar="VENV", help="measure Synapse from there as well")
    parser.add_argument("--skip-ours", action="store_true", help="measure only Synapse")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of everything (0.2: a quick look)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    parser.add_argument("--keep", action="store_true", help="keep the servers' directories")
    options = parser.parse_args()

    work = Path(tempfile.mkdtemp(prefix="folkmoot-bench-"))
    work.chmod(0o755)
    results: dict[str, list[Row]] = {}
    failures = 0
    try:
        for name in ("folkmoot",) * (not options.skip_ours) + ("synapse",) * bool(options.synapse):
            results[name] = []
            for group, names in GROUPS.items():
                wanted = [row for row in names if row in (options.only or every)]
                if not wanted or options.group not in (None, group):
                    continue
                rows, failed = _run_group(group, name, work / f"{name}-{group}", wanted, options)
                results[name] += rows
                failures += failed
                print(table(f"{name}, {group}", rows), end="\n\n", flush=True)
    finally:
        if options.keep:
            print("kept:", work)
        else:
            shutil.rmtree(work, ignore_errors=True)
    if len(results) == 2:
        print(ratios(results["folkmoot"], results["synapse"], "synapse"))
    if options.json:
        written = {name: [row.as_json() for row in rows] for name, rows in results.items()}
        options.json.write_text(json.dumps(written, indent=1) + "\n")
    return 1 if failures else 0


def _run_group(
    group: str, name: str, directory: Path, rows: list[str], options: argparse.Namespace
) -> tuple[list[Row], int]:
    """One server on a fresh directory through the rows of one group."""
    directory.mkdir()
    venv = options.synapse.absolute() if options.synapse else None
    if group == "clients":
        server = Folkmoot(directory) if name == "folkmoot" else Synapse(directory, venv)
        return asyncio.run(run_clients(server, rows, options.scale))
    ours = name == "folkmoot"
    peer = FederatingFolkmoot(directory, free_port()) if ours else FederatingSynapse(directory, venv, free_port())
    resident = None
    if venv is not None:
        (directory / "resident").mkdir()
        resident = FederatingSynapse(directory / "resident", venv, free_port())
    return asyncio.run(run_federation(peer, resident, rows, options.scale))


if __name__ == "__main__":
    sys.exit(main())
