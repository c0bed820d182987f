"""Tables for IPython: aligned text in a terminal, HTML in a notebook."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate
from typing import Any

from .models import Pet, User, shown_values

_CELL_WIDTH = 30
_MAX_EXAMINED = 10 * _CELL_WIDTH  # Many characters may have no width.

# Control characters, bidirectional controls, and surrogates.
_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells with headers and a summary line; numbers are aligned to the right."""

    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]
    summary: str

    def text(self) -> str:
        """Return the table as lines of text."""
        columns = [_aligned(header, cells) for header, *cells in zip(self.headers, *self.rows, strict=True)]
        lines = ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]
        return "\n".join([*lines, self.summary])

    def html(self) -> str:
        """Return the table as HTML, without colours, so that it fits a dark or a light page."""
        summary = f"<p>{escape(self.summary)}</p>"
        if not self.headers:
            return f"<div>{summary}</div>"
        head = "".join(f"<th>{escape(header)}</th>" for header in self.headers)
        body = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in self.rows)
        return f"<div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{summary}</div>"


def table_of(rows: Sequence[User | Pet], summary: str) -> Table:
    """Return rows as a table, without the columns that are blank or default in all rows."""
    used = {name for row in rows for name, _ in row.__repr_args__()}
    shown = [{name: value for name, value in shown_values(row).items() if name in used} for row in rows]
    return Table(list(shown[0]) if shown else [], [list(row.values()) for row in shown], summary)


def _html_cell(cell: Any) -> str:
    side = "right" if _is_number(cell) else "left"
    return f'<td style="text-align: {side}">{escape(_cell_text(cell))}</td>'


def _aligned(header: str, cells: list[Any]) -> list[str]:
    texts = [header, *map(_cell_text, cells)]
    widths = [_width(text) for text in texts]
    spaces = [" " * (max(widths) - width) for width in widths]
    if any(map(_is_number, cells)):
        head, *body = [space + text for space, text in zip(spaces, texts, strict=True)]
    else:
        head, *body = [text + space for space, text in zip(spaces, texts, strict=True)]
    return [head, "-" * max(widths), *body]


def _is_number(cell: Any) -> bool:
    return isinstance(cell, int) and not isinstance(cell, bool)


def _cell_text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return _truncated(str(cell))


def _truncated(text: str) -> str:
    """Return the text on one line, and only its beginning if it is too wide."""
    line = _UNPRINTABLE.sub("\ufffd", " ".join(text[:_MAX_EXAMINED].split()))
    widths = list(accumulate(map(_width, line)))
    if len(text) <= _MAX_EXAMINED and (not widths or widths[-1] <= _CELL_WIDTH):
        return line
    beginning = (character for character, width in zip(line, widths, strict=True) if width < _CELL_WIDTH)
    return "".join(beginning).rstrip() + "…"


def _width(text: str) -> int:
    """Return the width of the text in columns of a terminal."""
    return len(text) if text.isascii() else sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
