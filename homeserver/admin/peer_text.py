"""What ``folkmoot peers`` prints. Pure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

HEADINGS = ("server", "state", "events", "others", "last success", "failing since", "tries", "next try", "why")
ORDER = {"dormant": 0, "failing": 1, "well": 2}


def table(peers: Sequence[Mapping[str, Any]]) -> str:
    """Every peer in a line, those in trouble first."""
    if not peers:
        return "Nothing was ever sent to another server."
    rows = [HEADINGS, *(_row(peer) for peer in sorted(peers, key=lambda one: (ORDER[one["state"]], one["server"])))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    failing = sum(peer["state"] != "well" for peer in peers)
    return "\n".join([*lines, f"servers: {len(peers)}, not reached: {failing}"])


def _row(peer: Mapping[str, Any]) -> tuple[str, ...]:
    missing = "+" if peer["behind"] else ""  # more lies in the log
    others = peer["edus"] + peer["to_device"]
    return (
        peer["server"],
        peer["state"],
        f"{peer['pdus']}{missing}",
        str(others),
        date(peer["last_success"]),
        date(peer["failing_since"]),
        str(peer["failures"]) if peer["failures"] else "",
        date(peer["retry_at"]),
        peer["reason"],
    )


def detail(peer: Mapping[str, Any]) -> str:
    """One peer."""
    lines = [
        f"{peer['server']}: {peer['state']}",
        f"rooms shared with it: {peer['rooms']}",
        f"waiting: {peer['pdus']} events, {peer['edus']} of typing, receipts, presence and devices, "
        f"{peer['to_device_messages']} messages to devices",
    ]
    if peer["behind"]:
        lines.append("it is behind: what it has missed is read from the log when it can be reached")
    lines.append(f"last success: {date(peer['last_success']) or 'never'}")
    if peer["failures"]:
        lines.append(
            f"failing since {date(peer['failing_since'])}, {peer['failures']} times in a row, "
            f"last {date(peer['last_failure'])}: {peer['reason']}"
        )
        lines.append(f"next try: {date(peer['retry_at'])}")
    requests, record = peer["requests"], peer["well_known"]
    if requests is not None:
        lines.append(f"requests to it wait until {date(requests['retry_at'])}: {requests['reason']}")
    if record is not None:
        lines.append(f"well-known record: {record['outcome']}: {record['reason']}")
    return "\n".join(lines)


def date(ms: int) -> str:
    """A time in UTC, empty for none."""
    if not ms:
        return ""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
