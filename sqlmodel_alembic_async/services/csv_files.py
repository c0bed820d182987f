"""CSV files: the native format, what foreign ones may look like, and the cells that a spreadsheet would run."""

import csv
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from tempfile import TemporaryFile
from typing import TextIO, cast

from ..errors import ImportRejectedError
from ..models import PetCreate, UserCreate
from ..reports import ImportReport

OWNER = "owner_"
PET_FIELDS = tuple(name for name in PetCreate.model_fields if name != "owner_id")
OWNER_FIELDS = tuple(UserCreate.model_fields)
COLUMNS = (*PET_FIELDS, *(OWNER + name for name in OWNER_FIELDS))

Source = str | os.PathLike[str] | TextIO

_DELIMITERS = ",;\t"
_LONGEST_FIELD = 2**31 - 1  # The notes of a pet are longer than the csv module expects.
_BATCH = 1000
# What a spreadsheet runs, also where a full-width sign stands for the plain one; and what defused() made of it.
_FORMULA = re.compile(r"'*[=+\-@\t\r＝＋－＠]")  # noqa: RUF001  # the full-width signs are meant


def defused(text: str) -> str:
    """Return the text as a cell that no spreadsheet runs."""
    return f"'{text}" if _FORMULA.match(text) else text


def restored(text: str) -> str:
    """Return the text that defused() was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


@contextmanager
def opened(source: Source) -> Iterator[TextIO]:
    """Open a path, or give an open text file, as a file that can be read twice."""
    if isinstance(source, str | os.PathLike):
        with open(source, encoding="utf-8-sig", newline="") as file, opened(file) as text:
            yield text
    elif not isinstance(source.read(0), str):
        raise TypeError("expected a file that is opened as text")
    elif _can_be_read_again(source):
        yield source
    else:
        with TemporaryFile("w+", encoding="utf-8", errors="surrogatepass", newline="") as file:
            shutil.copyfileobj(source, file)
            file.seek(0)
            yield cast(TextIO, file)


def _can_be_read_again(file: TextIO) -> bool:
    try:
        file.seek(file.tell())
    except OSError:  # A pipe, or a file of which a for loop has read the first lines.
        return False
    return True


class CSVFile:
    """A file whose header has been read; the fields of its columns are None where a column is to be ignored."""

    def __init__(self, file: TextIO, columns: Mapping[str, str | None]) -> None:
        self._file = file
        self._start = file.tell()
        self._delimiter, self.header = self._read_header({*COLUMNS, *columns})
        self.fields = _fields(self.header, columns)

    def batches(self) -> Iterator[list[tuple[int, list[str]]]]:
        """Yield the rows that are not blank, each with the line it begins in, from the first one on."""
        lines = self._lines()
        next(lines)
        while True:
            with _long_fields():
                batch = list(islice(lines, _BATCH))
            if not batch:
                return
            yield [(line, cells) for line, cells in batch if any(map(str.strip, cells))]

    def cell(self, cells: Sequence[str], field: str | None) -> tuple[str | None, str | None]:
        """Return the header of a field, and its text in a row."""
        if field is None or field not in self.fields:
            return field, None
        index = self.fields.index(field)
        return self.header[index], cells[index]

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        self._file.seek(self._start)
        line = 1
        try:
            first = self._file.readline().removeprefix("\ufeff")  # Before the reader takes it for a part of a cell.
            reader = csv.reader(chain([first], self._file), delimiter=self._delimiter, strict=True)
            for cells in reader:
                yield line, cells
                line = reader.line_num + 1
        except csv.Error as error:
            raise _rejected(line, f"can not be read, nor what follows: {error}") from None
        except UnicodeDecodeError:
            raise _rejected(line, "is not UTF-8, nor what follows: open the file with its own encoding") from None

    def _read_header(self, known: set[str]) -> tuple[str, list[str]]:
        candidates = []
        for self._delimiter in _DELIMITERS:
            try:
                with _long_fields():
                    cells = [cell.strip() for cell in next(self._lines(), (1, []))[1]]
            except ImportRejectedError as error:  # Quoted cells can not be read with another delimiter than theirs.
                refusal = error
            else:
                candidates.append((len(known.intersection(cells)), len(cells), self._delimiter, cells))
        if not candidates:
            raise refusal
        *_, delimiter, header = max(candidates, key=lambda candidate: candidate[:2])
        return delimiter, header


def _fields(header: Sequence[str], columns: Mapping[str, str | None]) -> list[str | None]:
    report = ImportReport()
    fields: list[str | None] = []
    for name in header:
        field = columns.get(name, name)
        if field is not None and field not in COLUMNS:
            report.reject(1, name, None, "is no column of ours: name the field it is for in `columns`, or None")
        elif field is not None and field in fields:
            report.reject(1, name, None, f"is a second column for {field}")
        elif header.count(name) > 1:
            report.reject(1, name, None, "stands twice in the header")
        fields.append(field)
    for name in columns.keys() - set(header):
        report.reject(1, name, None, "is missing in the header")
    if not header:
        report.reject(1, None, None, "is no header: the line is blank, or the file is empty, or read to its end")
    elif not any(fields) and not report.rejections:
        report.reject(1, None, None, "no column is one of ours")
    if report.rejections:
        raise ImportRejectedError(report)
    return fields


def _rejected(line: int, reason: str) -> ImportRejectedError:
    report = ImportReport()
    report.reject(line, None, None, reason)
    return ImportRejectedError(report)


@contextmanager
def _long_fields() -> Iterator[None]:
    # The limit is the whole process's, so it is put back before anybody else runs.
    limit = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(limit)
