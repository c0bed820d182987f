"""Cells of a file: text that becomes the values of a row, or is refused with a reason."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import Any, Literal

from .file_format import OWNER
from .placeholders import FIELDS_WITH_PLACEHOLDERS, MARK, is_placeholder, restored

PlaceholderNames = Literal["reject", "keep"]

_SEXES = {"m": "male", "f": "female", "u": "unknown"}
_FLAGS = {**dict.fromkeys(("true", "yes", "y", "1"), True), **dict.fromkeys(("false", "no", "n", "0"), False)}
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_YEAR = re.compile(r"\d{4}", re.ASCII)
_INTEGER = re.compile(r"\d{1,10}", re.ASCII)
# Two days that tell day, month and year apart.
_SAMPLES = (date(1999, 2, 3), date(2021, 11, 28))
_AMBIGUOUS = "1999-02-03"


class CellReader:
    """Reads the cells of a row: one dictionary for the pet and one for its owner, without what is blank."""

    def __init__(
        self,
        fields: Sequence[str | None],
        *,
        date_format: str | None,
        placeholder_names: PlaceholderNames,
    ) -> None:
        self._date_format = checked_date_format(date_format)
        self._takes_iso = not _reads_iso_otherwise(date_format)
        self._keeps_placeholders = placeholder_names == "keep"
        special: dict[str, Callable[[str, dict[str, Any]], Any]] = {
            "name": self._name,
            OWNER + "name": self._name,
            "breed": lambda text, values: None if is_placeholder(text) else text,
            "sex": lambda text, values: _SEXES.get(text.lower(), text.lower()),
            "status": lambda text, values: text.lower(),
            "neutered": _flag,
            "birth_date_estimated": _flag,
            "birth_date": self._birth_date,
            "deceased_on": self._date,
            "acquired_on": self._date,
            "weight_g": _grams,
        }
        plan = [
            (index, field, field.startswith(OWNER), field.removeprefix(OWNER), special.get(field))
            for index, field in enumerate(fields)
            if field
        ]
        # A year alone must know whether it is said to be exact.
        self._plan = sorted(plan, key=lambda column: column[1] == "birth_date")

    def read(self, cells: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any], list[tuple[str, str]]]:
        """Return the values of the pet and of its owner, and field and reason of each bad cell."""
        pet: dict[str, Any] = {}
        owner: dict[str, Any] = {}
        bad = []
        for index, field, is_owner, name, convert in self._plan:
            text = cells[index].strip()
            if not text:
                continue
            if text[0] == MARK and (bare := restored(field, text)) != text:
                text = bare
                if field in FIELDS_WITH_PLACEHOLDERS:
                    convert = None  # The mark says that the text is meant.
            values = owner if is_owner else pet
            if convert is None:
                values[name] = text
                continue
            try:
                value = convert(text, values)
            except ValueError as error:
                bad.append((field, str(error)))
            else:
                if value is not None:
                    values[name] = value
        return pet, owner, bad

    def _name(self, text: str, values: dict[str, Any]) -> str:
        if not self._keeps_placeholders and is_placeholder(text):
            raise ValueError('is a placeholder: placeholder_names="keep" takes it as a name')
        return text

    def _birth_date(self, text: str, values: dict[str, Any]) -> date:
        if not _YEAR.fullmatch(text):
            return self._date(text, values)
        if values.get("birth_date_estimated") is False:
            raise ValueError("is a year alone, which is an estimate")
        born = date(int(text), 1, 1)
        values["birth_date_estimated"] = True
        return born

    def _date(self, text: str, values: dict[str, Any]) -> date:
        if self._takes_iso and _ISO_DATE.fullmatch(text):
            return date.fromisoformat(text)
        if self._date_format is None:
            raise ValueError("is no date like 2026-01-31: give the file's own date_format")
        try:
            return datetime.strptime(text, self._date_format).date()
        except ValueError:
            iso = "like 2026-01-31, nor " if self._takes_iso else ""
            raise ValueError(f"is no date {iso}like {self._date_format}") from None


def checked_date_format(date_format: str | None) -> str | None:
    """Return the format; raise ValueError where it does not tell day, month and year."""
    if date_format is not None:
        for day in _SAMPLES:
            try:
                read = datetime.strptime(day.strftime(date_format), date_format).date()
            except ValueError:
                read = None
            if read != day:
                raise ValueError("date_format must be one of strptime's with day, month and year")
    return date_format


def _reads_iso_otherwise(date_format: str | None) -> bool:
    # What "%Y-%d-%m" reads looks like ISO, and is another day: nobody could tell which of them is meant.
    with suppress(ValueError):
        return datetime.strptime(_AMBIGUOUS, date_format or "") != datetime.fromisoformat(_AMBIGUOUS)
    return False


def _flag(text: str, values: dict[str, Any]) -> bool:
    try:
        return _FLAGS[text.lower()]
    except KeyError:
        raise ValueError("must be true or false, yes or no") from None


def _grams(text: str, values: dict[str, Any]) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError("must be whole grams, in digits alone")
    return int(text)
