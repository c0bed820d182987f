"""Parse the cells of a row into values, or give the reason why a cell is rejected."""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import Any, Literal
from unicodedata import normalize

from .file_format import OWNER
from .placeholders import FIELDS_WITH_PLACEHOLDERS, MARK, is_placeholder, unescaped

PlaceholderNames = Literal["reject", "keep"]

_SEXES = {"m": "male", "f": "female", "u": "unknown"}
_FLAGS = {**dict.fromkeys(("true", "yes", "y", "1"), True), **dict.fromkeys(("false", "no", "n", "0"), False)}
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_YEAR = re.compile(r"\d{4}", re.ASCII)
_INTEGER = re.compile(r"\d{1,10}", re.ASCII)
_SAMPLE_DATES = (date(1999, 2, 3), date(2021, 11, 28))  # Day, month and year differ in each.
_AMBIGUOUS = "1999-02-03"


class CellReader:
    """Parses the cells of a row into the values of a pet and of its owner; blank cells are left out."""

    def __init__(
        self,
        fields: Sequence[str],
        *,
        date_format: str | None,
        placeholder_names: PlaceholderNames,
    ) -> None:
        self._date_format = checked_date_format(date_format)
        self._accepts_iso = not _misreads_iso(date_format)
        self._accepts_placeholders = placeholder_names == "keep"
        parsers: dict[str, Callable[[str, dict[str, Any]], Any]] = {
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
        columns = [
            (index, field, field.startswith(OWNER), field.removeprefix(OWNER), parsers.get(field))
            for index, field in enumerate(fields)
        ]
        # birth_date comes last: to accept a year alone, it needs birth_date_estimated.
        self._columns = sorted(columns, key=lambda column: column[1] == "birth_date")

    def read(self, cells: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any], list[tuple[str, str]]]:
        """Return the values of the pet, the values of its owner, and the field and reason of each bad cell."""
        pet: dict[str, Any] = {}
        owner: dict[str, Any] = {}
        bad = []
        for index, field, is_owner, name, parse in self._columns:
            text = cells[index].strip()
            if not text:
                continue
            if not text.isascii():
                text = normalize("NFC", text)  # As fields do: equal values must be equal before validation.
            if text[0] == MARK and (bare := unescaped(field, text)) != text:
                text = bare
                if field in FIELDS_WITH_PLACEHOLDERS:
                    parse = None  # The mark says that the text is a value, not a placeholder.
            values = owner if is_owner else pet
            if parse is None:
                values[name] = text
                continue
            try:
                value = parse(text, values)
            except ValueError as error:
                bad.append((field, str(error)))
            else:
                if value is not None:
                    values[name] = value
        return pet, owner, bad

    def _name(self, text: str, values: dict[str, Any]) -> str:
        if not self._accepts_placeholders and is_placeholder(text):
            raise ValueError('is a placeholder, not a name: pass placeholder_names="keep" to accept it')
        return text

    def _birth_date(self, text: str, values: dict[str, Any]) -> date:
        if not _YEAR.fullmatch(text):
            return self._date(text, values)
        if values.get("birth_date_estimated") is False:
            raise ValueError("is a year alone, which is an estimate: give a full date, or change birth_date_estimated")
        born = _existing_date(f"{text}-01-01")
        values["birth_date_estimated"] = True
        return born

    def _date(self, text: str, values: dict[str, Any]) -> date:
        if self._accepts_iso and _ISO_DATE.fullmatch(text):
            return _existing_date(text)
        if self._date_format is None:
            raise ValueError("must be a date like 2026-01-31: pass date_format to accept another format")
        try:
            parsed = time.strptime(text, self._date_format)
            found = date(*parsed[:3])
            # strptime takes the 366th day of 2021 for a day of 2022. With a week of ISO 8601, its tm_yday is wrong.
            if parsed.tm_yday != found.timetuple().tm_yday and "%V" not in self._date_format:
                raise ValueError
            return found
        except ValueError:
            iso = "like 2026-01-31, or " if self._accepts_iso else ""
            raise ValueError(f"must be a date {iso}in the format {self._date_format}") from None


def checked_date_format(date_format: str | None) -> str | None:
    """Return the format; raise ValueError if it does not contain day, month and year."""
    if date_format is not None and not all(_is_complete(date_format, day) for day in _SAMPLE_DATES):
        raise ValueError('date_format must be a strptime format with day, month and year, like "%d.%m.%Y"')
    return date_format


def _is_complete(date_format: str, day: date) -> bool:
    text = day.strftime(date_format)
    if text == day.replace(year=day.year + 1).strftime(date_format):
        return False  # strptime warns of a format without a year.
    try:
        return datetime.strptime(text, date_format).date() == day
    except (ValueError, re.error):  # strptime makes a regular expression of the format.
        return False


def _misreads_iso(date_format: str | None) -> bool:
    """Return whether the format reads an ISO date as another day, as "%Y-%d-%m" does."""
    with suppress(ValueError):
        return datetime.strptime(_AMBIGUOUS, date_format or "") != datetime.fromisoformat(_AMBIGUOUS)
    return False


def _existing_date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:  # In some versions of Python, its message shows the value.
        raise ValueError("must be a date that exists in the calendar") from None


def _flag(text: str, values: dict[str, Any]) -> bool:
    try:
        return _FLAGS[text.lower()]
    except KeyError:
        raise ValueError("must be true or false, yes or no") from None


def _grams(text: str, values: dict[str, Any]) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError("must be a whole number of grams, written in digits only")
    return int(text)
