"""Import: the rows of a CSV file become pets and owners, matched by their keys, or are rejected with a reason."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlmodel.ext.asyncio.session import AsyncSession

from ..errors import ImportRejectedError
from ..fields import Email, ExternalRef, Microchip
from ..models import (
    Pet,
    PetCreate,
    PetUpdate,
    User,
    UserCreate,
    UserUpdate,
    check_agreement,
    stamped,
    valid_values,
    with_name_key,
)
from . import rows
from .cells import CellReader, PlaceholderNames
from .csv_files import OWNER, CSVFile, Source, opened
from .filters import FILTER_CONFIG
from .import_report import ImportReport
from .ledger import OWNER_KEYS, Key, Ledger, half

_KEYS: dict[str, TypeAdapter[Any]] = {
    "external_ref": TypeAdapter(ExternalRef, config=FILTER_CONFIG),
    "microchip": TypeAdapter(Microchip, config=FILTER_CONFIG),
    "email": TypeAdapter(Email, config=FILTER_CONFIG),
}
_PET_KEYS = ("external_ref", "microchip")
_SOME_ID = 1  # Stands for an owner's id where only whether there is an owner matters.

Progress = bool | Callable[[int], object]


async def import_pets(
    session: AsyncSession,
    source: Source,
    *,
    columns: Mapping[str, str | None] | None = None,
    date_format: str | None = None,
    placeholder_names: PlaceholderNames = "reject",
    keep_going: bool = False,
    dry_run: bool = False,
    progress: Progress = False,
) -> ImportReport:
    """Import pets and their owners from a CSV file, a path or an open text file, in a savepoint.

    A row is matched by external_ref, then by microchip (a pet) or e-mail (an owner); a blank cell changes nothing.
    Any rejected row raises ImportRejectedError with the report, and nothing is written, unless `keep_going`.
    `columns` names the field for a header that is not ours, None to ignore it; `date_format` is strptime's.
    """
    if placeholder_names not in ("reject", "keep"):
        raise ValueError('placeholder_names must be "reject" or "keep"')
    with opened(source) as text, Ledger() as ledger:
        file = CSVFile(text, columns or {})
        cells = CellReader(file.fields, date_format=date_format, placeholder_names=placeholder_names)
        work = _Import(session, file, cells, ledger)
        await work.look_ahead(counted=progress is True)
        with _shown(progress, ledger.rows) as show:
            async with rows.savepoint(session) as savepoint:
                await work.run(show)
                if work.report.rejected and not keep_going:
                    raise ImportRejectedError(work.report)
                if dry_run:
                    await savepoint.rollback()
        if not dry_run:
            await work.refresh_session()
    work.report.dry_run = dry_run
    return work.report


@dataclass(slots=True, eq=False)
class _Owner:
    """An owner of some rows of a batch, as it is stored, or new; `values` are to be written."""

    values: dict[str, Any]
    stored: dict[str, Any] | None = None
    is_new: bool = False
    is_counted: bool = False
    cells: str | None = None  # What tells an owner without a key from another one.


@dataclass(slots=True, eq=False)
class _Row:
    line: int
    texts: list[str]
    pet: dict[str, Any]
    owner_cells: dict[str, Any]
    pet_keys: Sequence[Key] = ()
    owner_keys: Sequence[Key] = ()
    stored: dict[str, Any] | None = None
    owner: _Owner | None = None
    bad_fields: tuple[str | None, ...] = ()


class _Import:
    """One import: what it reads, and the statements that it takes for a batch of rows."""

    def __init__(self, session: AsyncSession, file: CSVFile, cells: CellReader, ledger: Ledger) -> None:
        self.report = ImportReport()
        self._session = session
        self._file = file
        self._cells = cells
        self._ledger = ledger
        self._updated: dict[Any, set[int]] = {User: set(), Pet: set()}

    async def look_ahead(self, *, counted: bool) -> None:
        """Read the keys of the whole file: what two rows claim is refused to both."""
        if not counted and not {*_PET_KEYS, *(OWNER + name for name in OWNER_KEYS)}.intersection(self._file.fields):
            return
        for batch in self._file.batches():
            for line, texts in batch:
                if len(texts) == len(self._file.header):
                    pet, owner, _ = self._cells.read(texts)
                    self._ledger.claim(line, _keys(pet, _PET_KEYS), _keys(owner, OWNER_KEYS), owner)
            self._ledger.rows += len(batch)
            await asyncio.sleep(0)
        self._ledger.settle()

    async def run(self, show: Callable[[int], object]) -> None:
        """Import all batches."""
        for batch in self._file.batches():
            found = list(filter(None, (self._read(line, texts) for line, texts in batch)))
            await self._find_pets(found)
            await self._find_owners([row for row in found if row.owner_cells and not row.bad_fields])
            good = [row for row in found if not row.bad_fields]
            await self._write_owners({row.owner: None for row in good if row.owner is not None})
            await self._write_pets(good)
            show(self.report.rows)
        self.report.rejections.sort(key=attrgetter("line"))

    async def refresh_session(self) -> None:
        """Read anew what the session holds and the import changed."""
        for model, ids in self._updated.items():
            await rows.refresh(self._session, model, ids)

    def _read(self, line: int, texts: list[str]) -> _Row | None:
        if len(texts) != len(self._file.header):
            self.report.reject(line, None, None, f"has {len(texts)} cells, not {len(self._file.header)}")
            self.report.rejected += 1
            return None
        pet, owner_cells, bad = self._cells.read(texts)
        row = _Row(line, texts, pet, owner_cells)
        for name, reason in bad:
            self._reject(row, name, reason)
        row.pet_keys = _keys(row.pet, _PET_KEYS)
        for key in row.pet_keys:
            if (other := self._ledger.other_claim(line, key)) is not None:
                self._reject(row, key[0], f"is claimed by line {other}, too")
        if row.owner_cells and _keys(row.owner_cells, OWNER_KEYS):
            row.owner_cells = self._ledger.whole_owner(row.owner_cells)
            row.owner_keys = _keys(row.owner_cells, OWNER_KEYS)
            if contradiction := self._ledger.contradiction(row.owner_keys):
                name, *lines = contradiction
                reason = f"differs between lines {lines[0]} and {lines[1]}, which have one owner"
                self._reject(row, OWNER + name, reason)
        return row

    async def _find_pets(self, found: list[_Row]) -> None:
        stored = await self._stored(Pet, (key for row in found for key in row.pet_keys))
        for row in found:
            row.stored = self._one(row, row.pet_keys, stored, "")
            if row.stored is not None:
                if (first := self._ledger.first_line_of(row.stored["id"], row.line)) != row.line:
                    self._reject(row, row.pet_keys[0][0], f"is of the same pet as line {first}")
                self._check_changed_pet(row, row.stored)
            elif row.pet or not row.owner_cells:
                with self._rejecting(row, ""):
                    owner_id = _SOME_ID if row.owner_cells else None
                    row.pet = valid_values(PetCreate, {**row.pet, "owner_id": owner_id})

    def _check_changed_pet(self, row: _Row, stored: dict[str, Any]) -> None:
        given = row.pet
        acquired_on = {"acquired_on": given.pop("acquired_on")} if "acquired_on" in given else {}
        with self._rejecting(row, ""):
            row.pet = _given(PetUpdate.model_validate(given)) | acquired_on
            owner_id = _SOME_ID if row.owner_cells else stored["owner_id"]
            check_agreement({**stored, **row.pet, "owner_id": owner_id})

    async def _find_owners(self, found: list[_Row]) -> None:
        stored = await self._stored(User, (key for row in found for key in row.owner_keys))
        present = await self._present_owners(found)
        owners: dict[Any, _Owner] = {}  # By key, by id, and those without a key by their cells.
        for row in found:
            with self._rejecting(row, OWNER):
                if row.owner_keys:
                    match = self._one(row, row.owner_keys, stored, OWNER)
                    row.owner = self._keyed_owner(row, match, owners)
                elif row.stored is not None and row.stored["owner_id"] is not None:
                    row.owner = self._present_owner(row, present[row.stored["owner_id"]])
                else:
                    row.owner = self._unkeyed_owner(row, owners)
            if row.owner is not None and row.stored is not None:
                self._check_transfer(row, row.stored, row.owner)

    def _keyed_owner(self, row: _Row, stored: dict[str, Any] | None, owners: dict[Any, _Owner]) -> _Owner | None:
        names: list[Any] = [*row.owner_keys, *([stored["id"]] if stored else [])]
        known = {owners[name] for name in names if name in owners}
        if stored is None:
            owner = known.pop() if known else _Owner(valid_values(UserCreate, row.owner_cells), is_new=True)
        else:
            owner = owners.get(stored["id"]) or _Owner({}, stored)
            known.discard(owner)
            for name, value in _given(UserUpdate.model_validate(row.owner_cells)).items():
                if value != owner.values.get(name, value):
                    self._reject(row, OWNER + name, "differs from another line, which has the same owner")
                elif value != stored[name]:
                    owner.values[name] = value
        if known:
            self._reject(row, OWNER + row.owner_keys[-1][0], "is another owner's in another line")
        owners.update(dict.fromkeys(names, owner))
        return owner

    def _present_owner(self, row: _Row, stored: dict[str, Any]) -> _Owner:
        given = _given(UserUpdate.model_validate(row.owner_cells))
        if any(stored[name] != value for name, value in given.items()):
            self._reject(row, None, "names an owner who is not this pet's, and no key to find another one by")
        return _Owner({}, stored)

    def _unkeyed_owner(self, row: _Row, owners: dict[Any, _Owner]) -> _Owner:
        cells = half(row.owner_cells)
        if (user_id := self._ledger.known_owner(cells)) is not None:
            return _Owner({}, {"id": user_id})
        if cells not in owners:
            owners[cells] = _Owner(valid_values(UserCreate, row.owner_cells), is_new=True, cells=cells)
        return owners[cells]

    def _check_transfer(self, row: _Row, pet: dict[str, Any], owner: _Owner) -> None:
        if owner.stored is None or owner.stored["id"] != pet["owner_id"]:
            if pet["status"] == "deceased":
                self._reject(row, None, "gives a deceased pet to another owner")
            row.pet.setdefault("acquired_on", None)  # The day belonged to the owner before.

    async def _write_owners(self, owners: Iterable[_Owner]) -> None:
        new = [owner for owner in owners if owner.is_new]
        ids = await rows.insert_returning_ids(self._session, User, [stamped(owner.values) for owner in new])
        for owner, user_id in zip(new, ids, strict=True):
            owner.stored = {"id": user_id}
            if owner.cells is not None:
                self._ledger.remember_owner(owner.cells, user_id)
        changed = [owner for owner in owners if owner.values and not owner.is_new]
        await self._update(User, {owner.stored["id"]: owner.values for owner in changed if owner.stored is not None})

    async def _write_pets(self, good: list[_Row]) -> None:
        new, changed = [], {}
        for row in good:
            owner_id = {"owner_id": row.owner.stored["id"]} if row.owner is not None and row.owner.stored else {}
            outcome = self._outcome(row.owner)
            if row.stored is not None:
                values = {name: value for name, value in {**row.pet, **owner_id}.items() if value != row.stored[name]}
                if values:
                    changed[row.stored["id"]] = values
                outcome = "updated" if values or outcome != "unchanged" else "unchanged"
            elif row.pet:
                new.append(stamped({**row.pet, **owner_id}))
                outcome = "created"
            setattr(self.report, outcome, getattr(self.report, outcome) + 1)
        await rows.insert_all(self._session, Pet, new)
        await self._update(Pet, changed)

    def _outcome(self, owner: _Owner | None) -> str:
        if owner is None or owner.is_counted or not owner.values:
            return "unchanged"
        owner.is_counted = True
        return "created" if owner.is_new else "updated"

    async def _update(self, model: Any, changed: dict[int, dict[str, Any]]) -> None:
        await rows.update_each(
            self._session, model, {row_id: with_name_key(values) for row_id, values in changed.items()}
        )
        self._updated[model] |= changed.keys() & rows.held_ids(self._session, model)

    async def _stored(self, model: Any, keys: Iterable[Key]) -> dict[Key, dict[str, Any]]:
        wanted: dict[str, list[str]] = {}
        for name, value in keys:
            wanted.setdefault(name, []).append(value)
        found: dict[int, dict[str, Any]] = {}
        by_key = {}
        for name, values in wanted.items():
            for row in await rows.fetch_where_in(self._session, model, name, values):
                by_key[name, row[name]] = found.setdefault(row["id"], row)
        return by_key

    async def _present_owners(self, found: list[_Row]) -> dict[int, dict[str, Any]]:
        ids = {row.stored["owner_id"] for row in found if row.stored is not None and not row.owner_keys} - {None}
        owners = await rows.fetch_where_in(self._session, User, "id", list(ids))
        return {owner["id"]: owner for owner in owners}

    def _one(
        self, row: _Row, keys: Sequence[Key], stored: dict[Key, dict[str, Any]], prefix: str
    ) -> dict[str, Any] | None:
        matches = [stored[key] for key in keys if key in stored]
        if matches and matches[-1] is not matches[0]:
            self._reject(row, prefix + keys[-1][0], "belongs to another one than external_ref")
        return matches[0] if matches else None

    @contextmanager
    def _rejecting(self, row: _Row, prefix: str) -> Iterator[None]:
        try:
            yield
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_input=False):
                name = prefix + str(detail["loc"][0]) if detail["loc"] else None
                reason = "must not be blank" if detail["type"] == "missing" else detail["msg"]
                self._reject(row, name, reason.removeprefix("Value error, "))
        except ValueError as error:
            self._reject(row, None, str(error))

    def _reject(self, row: _Row, name: str | None, reason: str) -> None:
        if not row.bad_fields:
            self.report.rejected += 1
        if name not in row.bad_fields:  # What is refused already would now be reported missing.
            column, text = self._file.cell(row.texts, name)
            self.report.reject(row.line, column, text, reason)
        row.bad_fields = (*row.bad_fields, name)


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


def _given(changes: UserUpdate | PetUpdate) -> dict[str, Any]:
    """Return what an Update shape gives; a blank cell, or one in which nothing can be seen, changes nothing."""
    return {name: value for name in changes.model_fields_set if (value := getattr(changes, name)) is not None}


@contextmanager
def _shown(progress: Progress, total: int) -> Iterator[Callable[[int], object]]:
    if progress is not True:
        yield progress or (lambda done: None)
        return
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped]  # it has no types of its own
    except ModuleNotFoundError:
        hint = "tqdm is not installed: pip install 'sqlmodel-alembic-async[progress]'"
        raise ModuleNotFoundError(hint, name="tqdm") from None
    with tqdm(total=total, unit=" rows") as bar:
        yield lambda done: bar.update(done - bar.n)
