"""The rows of a file: their values, their keys, and the reasons why they are rejected."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ...fields import Email, ExternalRef, Microchip
from ...import_report import ImportReport
from ...models import PetUpdate, UserUpdate
from ..statements.chunks import mapped
from ..statements.filters import FILTER_CONFIG
from .cell_parsing import CellReader
from .file_format import OWNER, CSVFile, NumberedRow
from .key_index import OWNER_KEYS, Key, KeyIndex

_KEY_TYPES: dict[str, TypeAdapter[Any]] = {
    "external_ref": TypeAdapter(ExternalRef, config=FILTER_CONFIG),
    "microchip": TypeAdapter(Microchip, config=FILTER_CONFIG),
    "email": TypeAdapter(Email, config=FILTER_CONFIG),
}
PET_KEYS = ("external_ref", "microchip")


@dataclass(slots=True, eq=False)
class ImportedOwner:
    """The owner of some rows of a batch: the values to write, and the stored user, which is None for a new owner.

    `keyless_text` is the owner_text() of a new owner without a key.
    """

    values: dict[str, Any]
    stored: dict[str, Any] | None = None
    is_new: bool = False
    is_counted: bool = False
    keyless_text: str | None = None


@dataclass(slots=True, eq=False)
class ImportedRow:
    """A row of the file.

    `stored` is the pet that it matches, None if the pet is new or the row has no pet. None in `rejected_fields` stands
    for the row as a whole.
    """

    line: int
    cells: list[str]
    pet_values: dict[str, Any]
    owner_values: dict[str, Any]
    pet_keys: Sequence[Key] = ()
    owner_keys: Sequence[Key] = ()
    stored: dict[str, Any] | None = None
    owner: ImportedOwner | None = None
    rejected_fields: tuple[str | None, ...] = ()


class ImportedFile:
    """Reads the rows of a file, and reports those that are rejected."""

    def __init__(self, file: CSVFile, cell_reader: CellReader, key_index: KeyIndex) -> None:
        self.report = ImportReport()
        self.key_index = key_index
        self._file = file
        self._cell_reader = cell_reader
        self._sorted = 0

    async def build_key_index(self, *, count_rows: bool) -> None:
        """Read the keys of the whole file, because a key on two lines rejects both of them."""
        key_fields = {*PET_KEYS, *(OWNER + name for name in OWNER_KEYS)}
        if not count_rows and not key_fields.intersection(self._file.fields):
            return
        async for batch in self.batches():
            await mapped(self._index_row, batch)
            self.key_index.row_count += len(batch)
        await self.key_index.build()

    def batches(self) -> AsyncIterator[list[NumberedRow]]:
        """Yield all rows that are not blank, in batches; each call starts at the first row."""
        return self._file.batches()

    async def read(self, batch: Iterable[NumberedRow]) -> list[ImportedRow]:
        """Return the rows of a batch that have the right number of cells, and reject the others."""
        return list(filter(None, await mapped(self._read_row, batch)))

    def sort_rejections(self) -> None:
        """Sort the rejections of the last batch by line."""
        rejections = self.report.rejections
        rejections[self._sorted :] = sorted(rejections[self._sorted :], key=attrgetter("line"))
        self._sorted = len(rejections)

    def find_stored(
        self, row: ImportedRow, keys: Sequence[Key], stored: dict[Key, dict[str, Any]], prefix: str
    ) -> dict[str, Any] | None:
        """Return the stored row that the keys match; reject the row if they match two."""
        matches = [stored[key] for key in keys if key in stored]
        if matches and matches[-1] is not matches[0]:
            reason = "matches a different row than external_ref: correct one of the two keys"
            self.reject(row, prefix + keys[-1][0], reason)
        for name, value in keys:
            # Within one batch, `stored` still has the key.
            if (name, value) not in stored and self.key_index.is_replaced((prefix + name, value)):
                reason = "is a stored key that another line of the file replaces: use the new key"
                self.reject(row, prefix + name, reason)
        return matches[0] if matches else None

    def rejecting(self, row: ImportedRow, prefix: str) -> "_Rejecting":
        """Return a context manager that rejects the row for a ValidationError or a ValueError."""
        return _Rejecting(self, row, prefix)

    def reject(self, row: ImportedRow, name: str | None, reason: str) -> None:
        """Reject the row for one of its fields, or as a whole if `name` is None."""
        if not row.rejected_fields:
            self.report.rejected += 1
        if name not in row.rejected_fields:  # A rejected cell has no value, and would also be reported as missing.
            column, text = self._file.cell(row.cells, name)
            self.report.reject(row.line, column, text, reason)
        row.rejected_fields = (*row.rejected_fields, name)

    def _index_row(self, numbered: NumberedRow) -> None:
        line, width, cells = numbered
        if width == self._file.width:
            pet, owner, bad_cells = self._cell_reader.read(cells)
            if bad_cells:
                owner = {}
            self.key_index.add_row(line, _keys(pet, PET_KEYS), _keys(owner, OWNER_KEYS), owner)

    def _read_row(self, numbered: NumberedRow) -> ImportedRow | None:
        line, width, cells = numbered
        if width != self._file.width:
            reason = f"has {width} cells instead of {self._file.width}: add or remove cells"
            self.report.reject(line, None, None, reason)
            self.report.rejected += 1
            return None
        pet_values, owner_values, bad_cells = self._cell_reader.read(cells)
        row = ImportedRow(line, cells, pet_values, owner_values)
        for name, reason in bad_cells:
            self.reject(row, name, reason)
        row.pet_keys = _keys(row.pet_values, PET_KEYS)
        for key in row.pet_keys:
            if (other := self.key_index.other_line_with(key, line)) is not None:
                self.reject(row, key[0], f"is also on line {other}: give each key of a pet on one line only")
        if row.owner_values and _keys(row.owner_values, OWNER_KEYS):
            row.owner_values, contradiction = self.key_index.merged_owner(line, row.owner_values)
            row.owner_keys = _keys(row.owner_values, OWNER_KEYS)
            if contradiction is not None:
                name, *lines = contradiction
                reason = f"differs between lines {lines[0]} and {lines[1]} of the same owner: give one value on both"
                self.reject(row, OWNER + name, reason)
        return row


class _Rejecting:
    """A class, because contextlib's context managers take three times as long, and each row enters two of them."""

    __slots__ = ("_file", "_prefix", "_row")

    def __init__(self, file: ImportedFile, row: ImportedRow, prefix: str) -> None:
        self._file = file
        self._row = row
        self._prefix = prefix

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, ValidationError):
            for detail in error.errors(include_url=False, include_input=False):
                name = self._prefix + str(detail["loc"][0]) if detail["loc"] else None
                reason = "must not be blank" if detail["type"] == "missing" else detail["msg"]
                self._file.reject(self._row, name, reason.removeprefix("Value error, "))
        elif isinstance(error, ValueError):
            self._file.reject(self._row, None, str(error))
        return isinstance(error, ValueError)


def non_blank_values(changes: UserUpdate | PetUpdate) -> dict[str, Any]:
    """Return the values of an Update shape without None: a blank cell changes nothing."""
    return {name: value for name in changes.model_fields_set if (value := getattr(changes, name)) is not None}


def _keys(values: dict[str, Any], names: Iterable[str]) -> Sequence[Key]:
    """Return the valid keys in these values, and normalise them in place; an invalid key is rejected later."""
    keys: Sequence[Key] = ()
    for name in names:
        if name in values:
            with suppress(ValidationError):
                if (key := _KEY_TYPES[name].validate_python(values[name])) is not None:
                    values[name] = key
                    keys = (*keys, (name, key))
    return keys
