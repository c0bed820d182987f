"""The chart of the README: how many times as long as ours each peer takes, as an SVG for light and dark pages."""

import math
from collections.abc import Iterator, Mapping
from html import escape

from .contenders import PEERS
from .report import TITLES, Results, ratio

_COLOURS = dict(zip(PEERS, ("#4c8eda", "#e0883a", "#5aa469"), strict=True))
_STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
.title { font-size: 15px; font-weight: 600; }
.engine { font-size: 13px; font-weight: 600; }
.soft { fill: #59636e; }
.value { font-size: 10px; }
.grid { stroke: #d1d9e0; stroke-width: 1; }
.one { stroke: #1f2328; stroke-width: 1.5; }
.cut { stroke: #ffffff; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .soft { fill: #9198a1; }
  .grid { stroke: #3d444d; }
  .one { stroke: #f0f6fc; }
  .cut { stroke: #0d1117; }
}
"""
_MARGIN = 16
_TOP = 92
_LABELS = 190  # Width of the rows' names.
_PANEL = 236  # Width of one engine's bars.
_GAP = 50  # Room for the value behind the longest bar.
_BAR = 10
_ROW = 3 * _BAR + 13
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10)
_MOST = 10.0  # What takes longer still is cut off here, or nobody could see the difference between once and twice.


def chart(results: Results, rows: Mapping[str, str]) -> str:
    """Return the SVG: a panel for each engine, a bar for each peer, on a logarithmic scale."""
    drawn = {row: text for row, text in rows.items() if any(_ratios(results[engine], row) for engine in results)}
    width = 2 * _MARGIN + _LABELS + len(results) * (_PANEL + _GAP)
    height = _TOP + len(drawn) * _ROW + 34
    every = [value for engine in results for row in drawn for value in _ratios(results[engine], row).values()]
    scale = _Scale(every)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="Time of each peer as a multiple of ours">',
        f"<style>{_STYLE}</style>",
        _text(_MARGIN, 28, "How many times as long as sqlmodel_alembic_async", "title"),
        *_legend(),
    ]
    for line, text in enumerate(drawn.values()):
        parts.append(_text(_MARGIN, _TOP + line * _ROW + _ROW / 2 + 3, text))
    for panel, (engine, figures) in enumerate(results.items()):
        left = _MARGIN + _LABELS + panel * (_PANEL + _GAP)
        bottom = _TOP + len(drawn) * _ROW
        parts += [_text(left + scale.x(1), _TOP - 14, TITLES[engine], "engine"), *_grid(scale, left, bottom)]
        for line, row in enumerate(drawn):
            parts += _bars(scale, left, _TOP + line * _ROW + 6, _ratios(figures, row))
        parts.append(_line(left + scale.x(1), bottom, "one"))
    return "\n".join([*parts, "</svg>", ""])


class _Scale:
    """Logarithmic, from below one to above the longest bar."""

    def __init__(self, values: list[float]) -> None:
        self.low = math.log10(min([0.8, *values]) * 0.9)
        self.high = math.log10(min(_MOST, max([2.0, *values])))

    def x(self, value: float) -> float:
        return (min(math.log10(value), self.high) - self.low) / (self.high - self.low) * _PANEL

    def ticks(self) -> Iterator[float]:
        return (tick for tick in _TICKS if self.low <= math.log10(tick) <= self.high)


def _ratios(figures: Mapping[str, Mapping[str, list[float]]], row: str) -> dict[str, float]:
    return {peer: value for peer in PEERS if (value := ratio(figures, row, peer))}


def _legend() -> Iterator[str]:
    x = _MARGIN
    for peer, colour in _COLOURS.items():
        yield f'<rect x="{x}" y="43" width="10" height="10" rx="2" fill="{colour}"/>'
        yield _text(x + 15, 52, peer)
        x += 32 + 7 * len(peer)
    yield _text(x + 8, 52, "right of the line: slower than ours; logarithmic scale, cut off at 10x", "soft")


def _grid(scale: _Scale, left: float, bottom: float) -> Iterator[str]:
    for tick in scale.ticks():
        if tick != 1:
            yield _line(left + scale.x(tick), bottom, "grid")
        yield _text(left + scale.x(tick), bottom + 16, f"{tick:,g}x", "soft value", anchor="middle")


def _bars(scale: _Scale, left: float, top: float, ratios: Mapping[str, float]) -> Iterator[str]:
    for place, peer in enumerate(PEERS):
        if (value := ratios.get(peer)) is None:
            continue
        y = top + place * (_BAR + 0.5)
        start, end = sorted((scale.x(1), scale.x(value)))
        yield (
            f'<rect x="{left + start:.1f}" y="{y:.1f}" width="{max(end - start, 1):.1f}" height="{_BAR - 1}" '
            f'fill="{_COLOURS[peer]}"/>'
        )
        if value > _MOST:
            yield _tip(left + end, y)
        yield _text(left + end + 4, y + _BAR - 2, _times(value), "soft value")


def _tip(x: float, y: float) -> str:
    # Two slanting cuts say that it goes on.
    cuts = " ".join(f"M{x - 9 + cut:.1f} {y + _BAR:.1f} l4 -{_BAR + 1}" for cut in (0, 4))
    return f'<path d="{cuts}" class="cut"/>'


def _times(value: float) -> str:
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}x"


def _line(x: float, bottom: float, kind: str) -> str:
    return f'<line x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{bottom:.1f}" class="{kind}"/>'


def _text(x: float, y: float, text: str, kind: str = "", *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
