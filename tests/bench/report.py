"""The tables that the benchmark prints."""

from tests.bench.measure import Row


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _cpu(row: Row) -> str:
    """CPU for each operation, with a ~ before it where the row was too short for a good figure."""
    return ("~" if row.coarse else "") + _number(row.cpu_ms)


def table(name: str, rows: list[Row]) -> str:
    """All rows of one server."""
    lines = [f"{name:<40}{'ops':>7}{'ops/s':>9}{'cpu ms/op':>11}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}"]
    for row in rows:
        times = "".join(f"{_number(value):>9}" for value in (row.p50, row.p95, row.p99))
        per_second, cpu = _number(row.per_second), _cpu(row)
        lines.append(f"  {row.name:<38}{row.operations:>7}{per_second:>9}{cpu:>11}{times}")
        lines += [f"      {note}: {_number(value)}" for note, value in row.notes.items()]
    return "\n".join(lines)


def ratios(ours: list[Row], theirs: list[Row], name: str) -> str:
    """CPU for each operation side by side, and how many times more the other one needs."""
    other = {row.name: row for row in theirs}
    lines = [f"{'CPU ms per operation':<42}{'folkmoot':>10}{name:>10}{'ratio':>8}"]
    for row in ours:
        match = other.get(row.name)
        if row.cpu_ms and match is not None and match.cpu_ms:
            ratio = f"{match.cpu_ms / row.cpu_ms:.1f}x"
            lines.append(f"  {row.name:<40}{_cpu(row):>10}{_cpu(match):>10}{ratio:>8}")
    return "\n".join(lines)
