"""First quartiles, ratios and goals, as text.

A round that the machine disturbed is slower, never faster: so the first quartile of the rounds counts.
"""

import statistics
from collections.abc import Iterator, Mapping

from ..report import TITLES, Goal
from .apps import APPS, FASTCRUD, OURS, PEERS, TUTORIAL
from .suite import OPERATIONS

Figures = Mapping[str, Mapping[str, list[float]]]  # Row, application: seconds of a request, one figure a round.

_TEXTS = {"get": "get", "list": "list of 50", "create": "create", "update": "update"}
_LEAST = {
    TUTORIAL: {"get": 1.4, "list": 1.5, "create": 1.9},
    FASTCRUD: {"get": 3, "list": 3, "create": 2},
}
_LONGEST_WAIT = 1 / 5


def quartile(figures: Figures, row: str, name: str) -> float | None:
    """Return the first quartile of all rounds, or None for a cell that was not measured."""
    values = figures.get(row, {}).get(name)
    if not values:
        return None
    return values[0] if len(values) == 1 else statistics.quantiles(values, n=4, method="inclusive")[0]


def ratio(figures: Figures, row: str, name: str) -> float | None:
    """Return how many times as long as ours an application takes."""
    ours, other = quartile(figures, row, OURS), quartile(figures, row, name)
    return other / ours if ours and other else None


def goals(results: Mapping[str, Figures]) -> Iterator[Goal]:
    """Give every goal whose figures were measured."""
    for engine, figures in results.items():
        for peer, least in _LEAST.items():
            for operation, limit in least.items():
                for row, unit in ((operation, "second"), (f"{operation}, CPU", "CPU second")):
                    if value := ratio(figures, row, peer):
                        text = f"{TITLES[engine]}, {_TEXTS[operation]}: times the requests per {unit} of {peer}"
                        yield Goal(text, value, limit)
        if engine == "sqlite":
            for peer in PEERS:
                if value := ratio(figures, "create, p99", peer):
                    text = f"{TITLES[engine]}, create: of the p99 of {peer}"
                    yield Goal(text, 1 / value, _LONGEST_WAIT, at_least=False)


def table(figures: Figures) -> str:
    """Return a table of requests a second and a CPU second, and of p99; 2x: ours answers twice as many, or as soon."""
    lines = [["", *APPS]]
    for operation in OPERATIONS:
        lines.append([f"{_TEXTS[operation]}, a second", *(_cell(figures, operation, name) for name in APPS)])
        row = f"{operation}, CPU"
        lines.append([f"{_TEXTS[operation]}, a CPU second", *(_cell(figures, row, name) for name in APPS)])
        row = f"{operation}, p99"
        lines.append([f"{_TEXTS[operation]}, p99", *(_cell(figures, row, name, as_rate=False) for name in APPS)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines
    )


def _cell(figures: Figures, row: str, name: str, *, as_rate: bool = True) -> str:
    value = quartile(figures, row, name)
    if value is None:
        return "-"
    text = f"{1 / value:,.0f}" if as_rate else f"{value * 1000:.1f} ms"
    return text if name == OURS else f"{text} ({ratio(figures, row, name) or 0:.2f}x)"
