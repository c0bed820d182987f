"""Medians, ratios and goals, as text."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from .contenders import CONTENDERS, CORE, OURS, PEERS, RAW

Figures = Mapping[str, Mapping[str, list[float]]]  # Row, contender: one figure a round.
Results = Mapping[str, Figures]  # By engine.

TITLES = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mariadb": "MariaDB"}
IMPORTS = ("sqlmodel, alembic", "sqlmodel_alembic_async")

_LEAST = {  # Times as fast as the fastest peer.
    "sqlite": {"create": 2, "update": 2, "delete": 2, "get": 1.5, "list": 1.25},
    "postgresql": {"create": 1.5, "update": 1.5, "get": 1.3, "delete": 1.2},
}
_AS_CORE = {"sqlite": 1, "postgresql": 1.25, "mariadb": 1.25}
_MEMORY = {
    "stream, memory": "stream, peak memory",
    "stream, memory of a tenth": "… of a tenth of it",
    "create all, memory": "create all, peak memory",
    "create all, memory of a tenth": "… of a tenth of it",
}
_SPARE = 16.0  # MB by which ten times the rows may raise a peak that counts as constant: noise of the allocator.


def row_titles(rows: int, bulk: int, tasks: int) -> dict[str, str]:
    """Return the rows of the table in their order, and what they are called at these sizes."""
    return {
        "create": "create",
        "get": "get",
        "list": "list of 100",
        "update": "update",
        "delete": "delete",
        "bulk pets": f"create {bulk:,} pets",
        "bulk users": f"create {bulk:,} users",
        "first page": "page at depth 0",
        "deep page": f"page at depth {rows:,}",
        "search, small": "prefix search among 1,000",
        "search": f"prefix search among {rows:,}",
        "stream": f"stream of {rows:,}",
        "mixed": f"{tasks} tasks, calls a second",
        "mixed, p50": f"{tasks} tasks, p50",
        "mixed, p99": f"{tasks} tasks, p99",
    }


@dataclass(frozen=True)
class Goal:
    """What is to be reached, and what was measured."""

    text: str
    value: float
    limit: float
    at_least: bool = True

    @property
    def reached(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        limit = f"at {'least' if self.at_least else 'most'} {self.limit:.4g}"
        return f"{'reached' if self.reached else 'MISSED '}  {self.value:8.2f}  ({limit})  {self.text}"


def median(figures: Figures, row: str, name: str) -> float | None:
    """Return the median of all rounds, or None for a cell that was not measured."""
    values = figures.get(row, {}).get(name)
    return statistics.median(values) if values else None


def ratio(figures: Figures, row: str, name: str) -> float | None:
    """Return how many times as long as ours a contender takes."""
    ours, other = median(figures, row, OURS), median(figures, row, name)
    return other / ours if ours and other else None


def fastest_peer(figures: Figures, row: str) -> str | None:
    """Return the name of the fastest peer of a row."""
    known = {name: value for name in PEERS if (value := median(figures, row, name)) is not None}
    return min(known, key=known.__getitem__, default=None)


def goals(results: Results, imports: Mapping[str, list[float]], rows: Mapping[str, str]) -> Iterator[Goal]:
    """Give every goal whose figures were measured."""
    for engine, figures in results.items():
        title = TITLES[engine]
        least = dict.fromkeys(rows, 1.0) if engine == "mariadb" else _LEAST[engine]
        for row, limit in least.items():
            peer = fastest_peer(figures, row)
            if peer and (value := ratio(figures, row, peer)):
                yield Goal(f"{title}, {rows[row]}: times as fast as {peer}, the fastest peer", value, limit)
        for row, text in rows.items():
            if value := ratio(figures, row, CORE):
                yield Goal(f"{title}, {text}: times as long as Core", 1 / value, _AS_CORE[engine], at_least=False)
        if engine in _LEAST:
            for row in ("bulk pets", "bulk users"):
                if value := ratio(figures, row, RAW):
                    yield Goal(f"{title}, {rows[row]}: of the rate of the driver's executemany", value, 1 / 3)
        yield from _flat(title, figures, rows)
        yield from _constant(title, figures)
    if imports:
        alone, package = (statistics.median(imports[name]) for name in IMPORTS)
        yield Goal("import: times as long as sqlmodel and alembic alone", package / alone, 1.15, at_least=False)


def _flat(title: str, figures: Figures, rows: Mapping[str, str]) -> Iterator[Goal]:
    for large, small, limit in (("deep page", "first page", 1.3), ("search", "search, small", 3)):
        values = median(figures, large, OURS), median(figures, small, OURS)
        if values[0] and values[1]:
            text = f"{title}, {rows[large]}: times as long as {rows[small]}"
            yield Goal(text, values[0] / values[1], limit, at_least=False)


def _constant(title: str, figures: Figures) -> Iterator[Goal]:
    for row, text in (("stream, memory", "streaming"), ("create all, memory", "creating")):
        every, tenth = median(figures, row, OURS), median(figures, f"{row} of a tenth", OURS)
        if every is not None and tenth is not None:
            text = f"{title}, {text}: MB that all rows take beyond a tenth of them"
            yield Goal(text, every - tenth, _SPARE, at_least=False)


def table(figures: Figures, rows: Mapping[str, str]) -> str:
    """Return a table of the medians, each with its ratio to ours: 2x takes twice as long as ours."""
    lines = [["", *CONTENDERS]]
    for row, text in rows.items():
        form = _rate if row == "mixed" else duration
        if figures.get(row):
            lines.append([text, *(_cell(figures, row, name, form, compared=True) for name in CONTENDERS)])
    for row, text in _MEMORY.items():
        if figures.get(row):
            lines.append([text, *(_cell(figures, row, name, _megabytes) for name in CONTENDERS)])
    return _aligned(lines)


def _cell(figures: Figures, row: str, name: str, form: Callable[[float], str], *, compared: bool = False) -> str:
    value = median(figures, row, name)
    if value is None:
        return "-"
    times = ratio(figures, row, name) if compared and name != OURS else None
    return form(value) if times is None else f"{form(value)} ({times:.2f}x)"


def duration(seconds: float) -> str:
    """Return seconds in the unit that reads best."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.2f} {unit}"
    return f"{seconds / 1e-6:.0f} µs"


def _rate(seconds: float) -> str:
    return f"{1 / seconds:,.0f}"


def _megabytes(value: float) -> str:
    return f"{value:.1f} MB"


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(f"| {' | '.join(_padded(line, widths))} |" for line in (lines[0], rule, *lines[1:]))


def _padded(line: Iterable[str], widths: list[int]) -> list[str]:
    return [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
