"""CSV files: their columns, their delimiter, and the rows in them."""

import asyncio
import csv
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain, islice
from typing import TextIO

from ...errors import ImportRejectedError
from ...fields import NOTES_LENGTH
from ...import_report import ImportReport
from ...models import PetCreate, UserCreate
from ..statements.chunks import BATCH_SIZE

OWNER = "owner_"
PET_FIELDS = tuple(name for name in PetCreate.model_fields if name != "owner_id")
OWNER_FIELDS = tuple(UserCreate.model_fields)
COLUMNS = (*PET_FIELDS, *(OWNER + name for name in OWNER_FIELDS))

# The first line of a row, the number of its cells, and the cells of the columns to import.
NumberedRow = tuple[int, int, list[str]]

_DELIMITERS = ",;\t"
_BATCH_CHARACTERS = 1_000_000  # A batch ends with the row that reaches it; each cell counts as one more.
_MAX_CELL_LENGTH = 4 * NOTES_LENGTH  # A cell may be longer than its value: blanks, combining characters.
_MAX_SUGGESTIONS = 20  # A header may have very many unknown columns.
_UNKNOWN = "unknown column{}: map it to a field in `columns`, or to None to ignore it"
_NO_HEADER = "no header: the line is blank, the file is empty, or was read to its end (a pipe can be read only once)"


class CSVFile:
    """A file whose header has been read; `fields` leaves out columns to ignore, `width` counts them, too."""

    def __init__(self, file: TextIO, columns: Mapping[str, str | None]) -> None:
        self._file = file
        self._start = file.tell()
        self._delimiter, header = self._read_header({*COLUMNS, *columns})
        self.width = len(header)
        used = [(index, field) for index, field in enumerate(_fields(header, columns)) if field]
        self.fields = [field for _, field in used]
        self._columns = [index for index, _ in used]
        self._headers = {field: (header[index], place) for place, (index, field) in enumerate(used)}

    async def batches(self) -> AsyncIterator[list[NumberedRow]]:
        """Yield all rows that are not blank, in batches; each call starts at the first row."""
        rows = islice(self._rows(), 1, None)
        has_ended = False
        while not has_ended:
            with _raised_field_limit:
                batch, has_ended = self._read_batch(rows)
            await asyncio.sleep(0)  # All lines may be blank.
            if batch:
                yield batch

    def _read_batch(self, rows: Iterator[tuple[int, list[str]]]) -> tuple[list[NumberedRow], bool]:
        batch: list[NumberedRow] = []
        size = 0
        for number, (line, cells) in enumerate(rows, 1):
            width = len(cells)
            size += width + sum(map(len, cells))
            if any(map(str.strip, cells)):
                kept = [cells[index] for index in self._columns] if width == self.width else []
                batch.append((line, width, kept))
            if number >= BATCH_SIZE or size >= _BATCH_CHARACTERS:
                return batch, False
        return batch, True

    def cell(self, cells: Sequence[str], field: str | None) -> tuple[str | None, str | None]:
        """Return the header of a field, and its text in a row."""
        if field is None or field not in self._headers:
            return field, None
        header, place = self._headers[field]
        return header, cells[place]

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        self._file.seek(self._start)
        line = 1
        try:
            # The csv module would read a byte order mark as part of the first cell.
            first = self._file.readline().removeprefix("\ufeff")
            reader = csv.reader(chain([first], self._file), delimiter=self._delimiter, strict=True)
            for cells in reader:
                yield line, cells
                line = reader.line_num + 1
        except csv.Error as error:
            if "field limit" in str(error):
                reason = f"a cell is longer than {_MAX_CELL_LENGTH:,} characters: add the quote that is missing"
            else:
                reason = f"is not valid CSV ({error}): correct the line, the rest of the file was not read"
            raise _rejected(line, reason) from None
        except (UnicodeDecodeError, EOFError) as error:
            raise unreadable(line, error) from None

    def _read_header(self, known: set[str]) -> tuple[str, list[str]]:
        candidates = []
        for self._delimiter in _DELIMITERS:
            try:
                with _raised_field_limit:
                    cells = [cell.strip() for cell in next(self._rows(), (1, []))[1]]
            except ImportRejectedError as error:  # Quoted cells cannot be read with the wrong delimiter.
                rejection = error
            else:
                candidates.append((len(known.intersection(cells)), len(cells), self._delimiter, cells))
        if not candidates:
            raise rejection
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
            near = _nearest(field) if len(report.rejections) < _MAX_SUGGESTIONS else ""
            report.reject(1, name, None, _unknown_field(field, near) if name in columns else _UNKNOWN.format(near))
        elif field is not None and field in seen:
            report.reject(1, name, None, f"second column for {field}: map only one column to it")
        elif times[name] > 1:
            report.reject(1, name, None, "appears more than once in the header: rename or remove the others")
        fields.append(field)
        seen.add(field)
    for name in columns.keys() - set(header):
        report.reject(1, name, None, "missing from the header: correct or remove the name in `columns`")
    if not header:
        report.reject(1, None, None, _NO_HEADER)
    elif not any(fields) and not report.rejections:
        report.reject(1, None, None, "no column to import: map at least one column to a field")
    if report.rejections:
        raise ImportRejectedError(report)
    return fields


def _unknown_field(field: str, near: str) -> str:
    return f"mapped to {field!r}, which is not a field{near}: map it to one of {', '.join(COLUMNS)}"


def _nearest(name: str) -> str:
    near = get_close_matches(name.lower().replace(" ", "_"), COLUMNS, n=1) if len(name) < 100 else []
    return f" (similar to {near[0]})" if near else ""


def unreadable(line: int, error: UnicodeDecodeError | EOFError) -> ImportRejectedError:
    """Return the rejection of a file that cannot be decoded, or decompressed, from this line on."""
    # The file is decoded in large parts: the exact line is unknown.
    if isinstance(error, EOFError):
        return _rejected(line, "this or a later line ends too early, as the compressed file does: copy the file again")
    reason = "this or a later line cannot be decoded (a path is read as UTF-8): open the file with its own encoding"
    return _rejected(line, reason)


def _rejected(line: int, reason: str) -> ImportRejectedError:
    report = ImportReport()
    report.reject(line, None, None, reason)
    return ImportRejectedError(report)


class _FieldLimit:
    """Raises the field size limit of the csv module, which is global, while at least one thread reads a file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._previous_limit = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._readers:
                self._previous_limit = csv.field_size_limit(_MAX_CELL_LENGTH)
            self._readers += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._readers -= 1
            if not self._readers:
                csv.field_size_limit(self._previous_limit)


_raised_field_limit = _FieldLimit()
