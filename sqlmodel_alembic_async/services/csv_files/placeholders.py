"""Cells that could be misread: an export puts an apostrophe before them, and an import removes it.

A spreadsheet would run a formula. An import would take a placeholder, such as "unknown", for a missing value.
"""

import re
import unicodedata
from functools import lru_cache

from ...fields import fold

MARK = "'"

_LONGEST = 1000  # Characters; a longer text is too long for every field that has placeholders.

# Some spreadsheets also run a formula that begins with a full-width sign.
_FORMULA = re.compile(r"[=+\-@\t\r＝＋－＠]")  # noqa: RUF001  # the full-width signs are meant
_PLACEHOLDERS = {
    *("unknown", "unk", "none", "null", "nil", "na", "n/a", "n.a.", "tbd", "tba", "no name", "noname", "nameless"),
    *("unnamed", "not named", "not named yet", "not yet named", "not provided", "not available", "not known"),
    *("not specified", "unspecified", "undisclosed", "x", "xx", "xxx", "xxxx"),
}
_MAX_PLACEHOLDER_LENGTH = max(map(len, _PLACEHOLDERS))

FIELDS_WITH_PLACEHOLDERS = {"name", "owner_name", "breed"}


def escaped(field: str, text: str) -> str:
    """Return the text as a cell that no spreadsheet runs, and that unescaped() turns into this text again."""
    return MARK + text if _needs_mark(field, text) else text


def unescaped(field: str, cell: str) -> str:
    """Return the text from which escaped() made this cell."""
    return cell[1:] if cell.startswith(MARK) and _needs_mark(field, cell[1:]) else cell


def is_placeholder(text: str) -> bool:
    """Tell whether a text stands for a missing value: a word such as "unknown", or only digits and punctuation."""
    if len(text) <= _MAX_PLACEHOLDER_LENGTH:
        return _is_short_placeholder(text)
    return len(text) <= _LONGEST and _has_no_word(text)


@lru_cache(maxsize=10_000)  # Names and breeds repeat often.
def _is_short_placeholder(text: str) -> bool:
    return fold(text) in _PLACEHOLDERS or _has_no_word(text)


def _has_no_word(text: str) -> bool:
    return not (text[0].isalpha() or any(map(_belongs_to_a_word, text)))


def _belongs_to_a_word(character: str) -> bool:
    return character.isalpha() or unicodedata.category(character) in ("Mn", "Mc", "So")


def _needs_mark(field: str, text: str) -> bool:
    """Return whether a cell would be misread without a mark; apostrophes at the start of the text do not count."""
    bare = text.lstrip(MARK)
    if _FORMULA.match(bare):
        return True
    return field in FIELDS_WITH_PLACEHOLDERS and text != "" and is_placeholder(bare or text)
