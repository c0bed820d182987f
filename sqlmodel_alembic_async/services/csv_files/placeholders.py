"""Cells that a reader would take for something else: an export marks them with an apostrophe, an import removes it."""

import re
import unicodedata
from functools import lru_cache

from ...fields import fold

MARK = "'"

# What a spreadsheet runs, also where a full-width sign stands for the plain one.
_FORMULA = re.compile(r"[=+\-@\t\r＝＋－＠]")  # noqa: RUF001  # the full-width signs are meant
_PLACEHOLDERS = {
    *("unknown", "unk", "none", "null", "nil", "na", "n/a", "n.a.", "tbd", "tba", "no name", "noname", "nameless"),
    *("unnamed", "not named", "not named yet", "not yet named", "not provided", "not available", "not known"),
    *("not specified", "unspecified", "undisclosed", "x", "xx", "xxx", "xxxx"),
}
_LONGEST_PLACEHOLDER = max(map(len, _PLACEHOLDERS))

# The fields in which an import does not take a placeholder as it is.
FIELDS_WITH_PLACEHOLDERS = {"name", "owner_name", "breed"}


def escaped(field: str, text: str) -> str:
    """Return the text as a cell that no spreadsheet runs, and that an import reads as this text."""
    return MARK + text if _needs_mark(field, text) else text


def restored(field: str, cell: str) -> str:
    """Return the text that escaped() was given."""
    return cell[1:] if cell.startswith(MARK) and _needs_mark(field, cell[1:]) else cell


def is_placeholder(text: str) -> bool:
    """Tell whether a text only stands for what is not known: such a word, or digits and punctuation alone."""
    return _is_word(text) if len(text) <= _LONGEST_PLACEHOLDER else _says_nothing(text)


@lru_cache(maxsize=10_000)  # The same names and breeds come again and again.
def _is_word(text: str) -> bool:
    return fold(text) in _PLACEHOLDERS or _says_nothing(text)


def _says_nothing(text: str) -> bool:
    return not (text[0].isalpha() or any(map(_says_something, text)))


def _says_something(character: str) -> bool:
    return character.isalpha() or unicodedata.category(character) in ("Mn", "Mc", "So")


def _needs_mark(field: str, text: str) -> bool:
    # What begins with marks of its own gets one more, so that removing one always returns the text.
    bare = text.lstrip(MARK)
    if _FORMULA.match(bare):
        return True
    return field in FIELDS_WITH_PLACEHOLDERS and text != "" and is_placeholder(bare or text)
