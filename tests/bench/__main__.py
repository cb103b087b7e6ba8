"""``python -m tests.bench``: what an operation costs, on this machine, with durable commits.

Starts the server on a fresh directory, runs every row, and the same against Synapse when ``--synapse VENV``
names a virtual environment that has ``matrix-synapse[postgres]``. The client is this process; only what the
server's processes use counts.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.bench import rows_basic, rows_idle, rows_keys, rows_live
from tests.bench.measure import Row
from tests.bench.process_tree import rss_bytes
from tests.bench.report import ratios, table
from tests.bench.servers import Folkmoot, Server, Synapse

ROWS: dict[str, Callable[[Server, float], Awaitable[list[Row]]]] = {
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


async def run(server: Server, names: list[str], scale: float) -> tuple[list[Row], int]:
    """All rows on one server, and how many could not be measured."""
    rows: list[Row] = []
    failed = 0
    first = Row("start on an empty directory", 1)
    try:
        first.notes["seconds to ready"] = first.seconds = await server.start()
        await asyncio.sleep(1)
        first.notes["RSS of the server process, MB"] = rss_bytes(server.roots[0]) / 1e6
        rows.append(first)
        for name in names:
            print(f"{server.name}: {name} ...", file=sys.stderr, flush=True)
            try:
                rows += await asyncio.wait_for(ROWS[name](server, scale), 1200)
            except Exception:
                failed += 1
                print(f"{server.name}: {name} failed\n{traceback.format_exc(limit=-3)}", file=sys.stderr)
    finally:
        server.stop()
    return rows, failed


def main() -> int:
    """Parse the arguments, run, print. Status 1 when a row could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=list(ROWS), help="only this row (may be repeated)")
    parser.add_argument("--synapse", type=Path, metavar="VENV", help="measure Synapse from there as well")
    parser.add_argument("--skip-ours", action="store_true", help="measure only Synapse")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of everything (0.2: a quick look)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    parser.add_argument("--keep", action="store_true", help="keep the servers' directories")
    options = parser.parse_args()

    work = Path(tempfile.mkdtemp(prefix="folkmoot-bench-"))
    work.chmod(0o755)
    servers: list[Server] = []
    if not options.skip_ours:
        servers.append(Folkmoot(_made(work / "folkmoot")))
    if options.synapse:
        servers.append(Synapse(_made(work / "synapse"), options.synapse.absolute()))
    results: dict[str, list[Row]] = {}
    failures = 0
    try:
        for server in servers:
            results[server.name], failed = asyncio.run(run(server, options.only or list(ROWS), options.scale))
            failures += failed
            print(table(server.name, results[server.name]), end="\n\n", flush=True)
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


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


if __name__ == "__main__":
    sys.exit(main())
