"""CSV files: the native format, and what foreign ones may look like."""

import csv
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TextIO

from ...errors import ImportRejectedError
from ...import_report import ImportReport
from ...models import PetCreate, UserCreate
from ..statements.chunks import BATCH_SIZE

OWNER = "owner_"
PET_FIELDS = tuple(name for name in PetCreate.model_fields if name != "owner_id")
OWNER_FIELDS = tuple(UserCreate.model_fields)
COLUMNS = (*PET_FIELDS, *(OWNER + name for name in OWNER_FIELDS))

Line = tuple[int, list[str]]  # The number of the line that a row begins in, and its cells.

_DELIMITERS = ",;\t"
_LONGEST_FIELD = 2**31 - 1  # The notes of a pet are longer than the csv module expects.
_NO_HEADER = "the line is blank, or the file is empty, or read to its end (a pipe can be read only once)"


class CSVFile:
    """A file whose header has been read; the fields of its columns are None where a column is to be ignored."""

    def __init__(self, file: TextIO, columns: Mapping[str, str | None]) -> None:
        self._file = file
        self._start = file.tell()
        self._delimiter, self.header = self._read_header({*COLUMNS, *columns})
        self.fields = _fields(self.header, columns)
        self._indexes = {field: index for index, field in enumerate(self.fields)}

    def batches(self) -> Iterator[list[Line]]:
        """Yield the rows that are not blank, each with the line it begins in, from the first one on."""
        lines = self._lines()
        skipped = 1  # The header.
        while True:
            with _long_fields:
                batch = list(islice(lines, skipped, skipped + BATCH_SIZE))
            skipped = 0
            if not batch:
                return
            yield [(line, cells) for line, cells in batch if any(map(str.strip, cells))]

    def cell(self, cells: Sequence[str], field: str | None) -> tuple[str | None, str | None]:
        """Return the header of a field, and its text in a row."""
        if field is None or field not in self._indexes:
            return field, None
        index = self._indexes[field]
        return self.header[index], cells[index]

    def _lines(self) -> Iterator[Line]:
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
                with _long_fields:
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
    seen: set[str | None] = set()
    times = Counter(header)
    for name in header:
        field = columns.get(name, name)
        if field is not None and field not in COLUMNS:
            report.reject(1, name, None, "is no column of ours: name the field it is for in `columns`, or None")
        elif field is not None and field in seen:
            report.reject(1, name, None, f"is a second column for {field}")
        elif times[name] > 1:
            report.reject(1, name, None, "stands twice in the header")
        fields.append(field)
        seen.add(field)
    for name in columns.keys() - set(header):
        report.reject(1, name, None, "is missing in the header")
    if not header:
        report.reject(1, None, None, f"is no header: {_NO_HEADER}")
    elif not any(fields) and not report.rejections:
        report.reject(1, None, None, "no column is one of ours")
    if report.rejections:
        raise ImportRejectedError(report)
    return fields


def _rejected(line: int, reason: str) -> ImportRejectedError:
    report = ImportReport()
    report.reject(line, None, None, reason)
    return ImportRejectedError(report)


class _FieldLimit:
    """Raises the csv module's limit while any thread reads: it is the whole process's, and put back by the last one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._limit = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._readers:
                self._limit = csv.field_size_limit(_LONGEST_FIELD)
            self._readers += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._readers -= 1
            if not self._readers:
                csv.field_size_limit(self._limit)


_long_fields = _FieldLimit()
