"""Tables to look at, in IPython's terminal as text that lines up, and in a notebook as HTML."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate
from typing import Any

from .models import Pet, User, shown_values

_CELL_WIDTH = 30
_LOOKED_AT = 10 * _CELL_WIDTH  # Characters: notes may have a million, and many of them no width.

# What would move a terminal's cursor or turn its direction of writing, and what no encoding knows.
_UNSHOWABLE = re.compile("[\0-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under their headers, and a line that sums them up; numbers stand on the right."""

    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]
    summary: str

    def text(self) -> str:
        """Return the table as lines of text."""
        columns = [_lined_up(header, cells) for header, *cells in zip(self.headers, *self.rows, strict=True)]
        lines = ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]
        return "\n".join([*lines, self.summary])

    def html(self) -> str:
        """Return the table as HTML without colours, so that it suits a dark page as well as a light one."""
        summary = f"<p>{escape(self.summary)}</p>"
        if not self.headers:
            return f"<div>{summary}</div>"
        head = "".join(f"<th>{escape(header)}</th>" for header in self.headers)
        body = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in self.rows)
        return f"<div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{summary}</div>"


def table_of(rows: Sequence[User | Pet], summary: str) -> Table:
    """Return rows as a table of the columns that at least one of them would show."""
    used = {name for row in rows for name, _ in row.__repr_args__()}
    shown = [{name: value for name, value in shown_values(row).items() if name in used} for row in rows]
    return Table(list(shown[0]) if shown else [], [list(row.values()) for row in shown], summary)


def _html_cell(cell: Any) -> str:
    side = "right" if _is_number(cell) else "left"
    return f'<td style="text-align: {side}">{escape(_shown(cell))}</td>'


def _lined_up(header: str, cells: list[Any]) -> list[str]:
    texts = [header, *map(_shown, cells)]
    widths = [_width(text) for text in texts]
    spaces = [" " * (max(widths) - width) for width in widths]
    if any(map(_is_number, cells)):
        head, *body = [space + text for space, text in zip(spaces, texts, strict=True)]
    else:
        head, *body = [text + space for space, text in zip(spaces, texts, strict=True)]
    return [head, "-" * max(widths), *body]


def _is_number(cell: Any) -> bool:
    return isinstance(cell, int) and not isinstance(cell, bool)


def _shown(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return _cut(str(cell))


def _cut(text: str) -> str:
    """Return the text on one line, and where it is too wide, its beginning."""
    line = _UNSHOWABLE.sub("\ufffd", " ".join(text[:_LOOKED_AT].split()))
    widths = list(accumulate(map(_width, line)))
    if len(text) <= _LOOKED_AT and (not widths or widths[-1] <= _CELL_WIDTH):
        return line
    beginning = (character for character, width in zip(line, widths, strict=True) if width < _CELL_WIDTH)
    return "".join(beginning).rstrip() + "…"


def _width(text: str) -> int:
    """Return how many places of a terminal the text takes."""
    return len(text) if text.isascii() else sum(map(_places, text))


def _places(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
