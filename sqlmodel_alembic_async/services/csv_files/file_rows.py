"""The rows of a file on their way in: what was read, what is wrong with it, and whom it is about."""

from collections.abc import Iterable, Iterator, Sequence
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
from .file_format import OWNER, CSVFile, Line
from .key_index import OWNER_KEYS, Key, Ledger

_KEYS: dict[str, TypeAdapter[Any]] = {
    "external_ref": TypeAdapter(ExternalRef, config=FILTER_CONFIG),
    "microchip": TypeAdapter(Microchip, config=FILTER_CONFIG),
    "email": TypeAdapter(Email, config=FILTER_CONFIG),
}
PET_KEYS = ("external_ref", "microchip")


@dataclass(slots=True, eq=False)
class ImportedOwner:
    """An owner of some rows of a batch, as it is stored, or new; `values` are to be written."""

    values: dict[str, Any]
    stored: dict[str, Any] | None = None
    is_new: bool = False
    is_counted: bool = False
    cells: str | None = None  # What tells an owner without a key from another one.


@dataclass(slots=True, eq=False)
class ImportedRow:
    """A row of the file; `stored` is the pet that it is about, None where that is new, or where there is none."""

    line: int
    texts: list[str]
    pet: dict[str, Any]
    owner_cells: dict[str, Any]
    pet_keys: Sequence[Key] = ()
    owner_keys: Sequence[Key] = ()
    stored: dict[str, Any] | None = None
    owner: ImportedOwner | None = None
    bad_fields: tuple[str | None, ...] = ()


class ImportedFile:
    """Reads the rows, and reports what is wrong with them."""

    def __init__(self, file: CSVFile, cells: CellReader, ledger: Ledger) -> None:
        self.report = ImportReport()
        self.ledger = ledger
        self._file = file
        self._cells = cells
        self._sorted = 0

    async def look_ahead(self, *, counted: bool) -> None:
        """Read the keys of the whole file: what two rows claim is refused to both."""
        if not counted and not {*PET_KEYS, *(OWNER + name for name in OWNER_KEYS)}.intersection(self._file.fields):
            return
        for batch in self.batches():
            await mapped(self._claim, batch)
            self.ledger.rows += len(batch)
        await self.ledger.settle()

    def batches(self) -> Iterator[list[Line]]:
        """Yield the lines that are not blank, a batch of them at a time, from the first one on."""
        return self._file.batches()

    async def read(self, batch: Iterable[Line]) -> list[ImportedRow]:
        """Return the rows of a batch, less those that are no rows."""
        return list(filter(None, await mapped(self._read, batch)))

    def sort_rejections(self) -> None:
        """Bring what a batch was rejected for in the order of the lines."""
        rejections = self.report.rejections
        rejections[self._sorted :] = sorted(rejections[self._sorted :], key=attrgetter("line"))
        self._sorted = len(rejections)

    def one(
        self, row: ImportedRow, keys: Sequence[Key], stored: dict[Key, dict[str, Any]], prefix: str
    ) -> dict[str, Any] | None:
        """Return what the keys find; where they find two, reject the row."""
        matches = [stored[key] for key in keys if key in stored]
        if matches and matches[-1] is not matches[0]:
            self.reject(row, prefix + keys[-1][0], "belongs to another one than external_ref")
        for name, value in keys:
            # Where both rows are in one batch, they are of the same pet or owner.
            if (name, value) not in stored and self.ledger.is_given_up((prefix + name, value)):
                self.reject(row, prefix + name, "is the key of a stored row, in which another line changes it")
        return matches[0] if matches else None

    def rejecting(self, row: ImportedRow, prefix: str) -> "_Rejecting":
        """Reject the row for what a shape refuses inside a `with`."""
        return _Rejecting(self, row, prefix)

    def reject(self, row: ImportedRow, name: str | None, reason: str) -> None:
        """Reject the row for one of its fields, or as a whole."""
        if not row.bad_fields:
            self.report.rejected += 1
        if name not in row.bad_fields:  # What is refused already would now be reported missing.
            column, text = self._file.cell(row.texts, name)
            self.report.reject(row.line, column, text, reason)
        row.bad_fields = (*row.bad_fields, name)

    def _claim(self, numbered: Line) -> None:
        line, texts = numbered
        if len(texts) == len(self._file.header):
            pet, owner, _ = self._cells.read(texts)
            self.ledger.claim(line, _keys(pet, PET_KEYS), _keys(owner, OWNER_KEYS), owner)

    def _read(self, numbered: Line) -> ImportedRow | None:
        line, texts = numbered
        if len(texts) != len(self._file.header):
            self.report.reject(line, None, None, f"has {len(texts)} cells, not {len(self._file.header)}")
            self.report.rejected += 1
            return None
        pet, owner_cells, bad = self._cells.read(texts)
        row = ImportedRow(line, texts, pet, owner_cells)
        for name, reason in bad:
            self.reject(row, name, reason)
        row.pet_keys = _keys(row.pet, PET_KEYS)
        for key in row.pet_keys:
            if (other := self.ledger.other_claim(line, key)) is not None:
                self.reject(row, key[0], f"is claimed by line {other}, too")
        if row.owner_cells and _keys(row.owner_cells, OWNER_KEYS):
            row.owner_cells, contradiction = self.ledger.whole_owner(line, row.owner_cells)
            row.owner_keys = _keys(row.owner_cells, OWNER_KEYS)
            if contradiction is not None:
                name, *lines = contradiction
                reason = f"differs between lines {lines[0]} and {lines[1]}, which have one owner"
                self.reject(row, OWNER + name, reason)
        return row


class _Rejecting:
    """A context manager of contextlib's takes three times as long, and each row is in two of them."""

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


def given(changes: UserUpdate | PetUpdate) -> dict[str, Any]:
    """Return what an Update shape gives; a blank cell, or one in which nothing can be seen, changes nothing."""
    return {name: value for name in changes.model_fields_set if (value := getattr(changes, name)) is not None}


def _keys(values: dict[str, Any], names: Iterable[str]) -> Sequence[Key]:
    """Return the keys of a row, normalised there, too; what is no valid key is refused later."""
    keys: Sequence[Key] = ()
    for name in names:
        if name in values:
            with suppress(ValidationError):
                if (key := _KEYS[name].validate_python(values[name])) is not None:
                    values[name] = key
                    keys = (*keys, (name, key))
    return keys
