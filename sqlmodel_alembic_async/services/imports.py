"""Import: the rows of a CSV file become pets and owners, matched by their keys, or are rejected with a reason."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from ..errors import ImportRejectedError
from ..models import Pet, PetCreate, PetUpdate, User, check_agreement
from ..reports import ImportReport, Outcome
from . import batches
from .cells import CellReader, PlaceholderNames
from .csv_files import OWNER, CSVFile, Source, opened
from .import_owners import find_owners
from .import_rows import PET_KEYS, ImportedFile, ImportedOwner, ImportedRow, given
from .ledger import OWNER_KEYS, Ledger
from .values import stamped, valid_values, with_name_key

_SOME_ID = 1  # Stands for an owner's id where only whether there is an owner matters.

Progress = bool | Callable[[int], object] | None


async def import_pets(
    session: AsyncSession,
    source: Source,
    *,
    columns: Mapping[str, str | None] | None = None,
    date_format: str | None = None,
    placeholder_names: PlaceholderNames = "reject",
    keep_going: bool = False,
    dry_run: bool = False,
    progress: Progress = None,
) -> ImportReport:
    """Import pets and their owners from a CSV file, a path or an open text file, in a savepoint.

    A row is matched by external_ref, then by microchip (a pet) or e-mail (an owner); a blank cell changes nothing.
    Any rejected row raises ImportRejectedError with the report, and nothing is written, unless `keep_going`.
    `columns` names the field for a header that is not ours, None to ignore it; `date_format` is strptime's.
    """
    if placeholder_names not in ("reject", "keep"):
        raise ValueError('placeholder_names must be "reject" or "keep"')
    with opened(source) as text, Ledger() as ledger:
        table = CSVFile(text, columns or {})
        cells = CellReader(table.fields, date_format=date_format, placeholder_names=placeholder_names)
        file = ImportedFile(table, cells, ledger)
        work = _Import(session, file)
        await file.look_ahead(counted=progress is True)
        with _shown(progress, ledger.rows) as show:
            async with batches.savepoint(session) as savepoint:
                await work.run(show)
                if file.report.rejected and not keep_going:
                    raise ImportRejectedError(file.report)
                if dry_run:
                    await savepoint.rollback()
    if not dry_run:
        await work.refresh_session()
    file.report.dry_run = dry_run
    return file.report


class _Import:
    """One import, and the statements that it takes for a batch of rows."""

    def __init__(self, session: AsyncSession, file: ImportedFile) -> None:
        self._session = session
        self._file = file
        self._updated: dict[Any, set[int]] = {User: set(), Pet: set()}

    async def run(self, show: Callable[[int], object]) -> None:
        """Import all batches."""
        for found in self._file.batches():
            await self._find_pets(found)
            await find_owners(self._session, self._file, found)
            good = [row for row in found if not row.bad_fields]
            await self._write_owners({row.owner: None for row in good if row.owner is not None})
            await self._write_pets(good)
            show(self._file.report.rows)

    async def refresh_session(self) -> None:
        """Read anew what the session holds and the import changed."""
        for model, ids in self._updated.items():
            await batches.refresh(self._session, model, ids)

    async def _find_pets(self, found: list[ImportedRow]) -> None:
        stored = await batches.fetch_by_keys(self._session, Pet, (key for row in found for key in row.pet_keys))
        for row in found:
            row.stored = self._file.one(row, row.pet_keys, stored, "")
            if row.stored is not None:
                if (first := self._file.ledger.first_line_of(row.stored["id"], row.line)) != row.line:
                    self._file.reject(row, row.pet_keys[0][0], f"is of the same pet as line {first}")
                self._check_changed_pet(row, row.stored)
            elif row.pet or not row.owner_cells:
                with self._file.rejecting(row, ""):
                    owner_id = _SOME_ID if row.owner_cells else None
                    row.pet = valid_values(PetCreate, {**row.pet, "owner_id": owner_id})

    def _check_changed_pet(self, row: ImportedRow, stored: dict[str, Any]) -> None:
        cells = row.pet
        acquired_on = {"acquired_on": cells.pop("acquired_on")} if "acquired_on" in cells else {}
        with self._file.rejecting(row, ""):
            row.pet = given(PetUpdate.model_validate(cells)) | acquired_on
            if _is_known_better(row.pet, stored):
                del row.pet["birth_date"], row.pet["birth_date_estimated"]
            if row.pet.get("birth_date", stored["birth_date"]) != stored["birth_date"]:
                row.pet.setdefault("birth_date_estimated", False)  # The estimate was of the other day.
            owner_id = _SOME_ID if row.owner_cells else stored["owner_id"]
            check_agreement({**stored, **row.pet, "owner_id": owner_id})

    async def _write_owners(self, owners: Collection[ImportedOwner]) -> None:
        new = [owner for owner in owners if owner.is_new]
        ids = await batches.insert_returning_ids(self._session, User, [stamped(owner.values) for owner in new])
        for owner, user_id in zip(new, ids, strict=True):
            owner.stored = {"id": user_id}
            if owner.cells is not None:
                self._file.ledger.remember_owner(owner.cells, user_id)
        changed = [owner for owner in owners if owner.values and not owner.is_new]
        for owner in changed:
            self._give_up(OWNER, OWNER_KEYS, owner.stored, owner.values)
        await self._update(User, {owner.stored["id"]: owner.values for owner in changed if owner.stored is not None})

    async def _write_pets(self, good: list[ImportedRow]) -> None:
        new, changed = [], {}
        for row in good:
            owner_id = {"owner_id": row.owner.stored["id"]} if row.owner is not None and row.owner.stored else {}
            outcome = _outcome(row.owner)
            if row.stored is not None:
                values = {name: value for name, value in {**row.pet, **owner_id}.items() if value != row.stored[name]}
                if values:
                    changed[row.stored["id"]] = values
                    self._give_up("", PET_KEYS, row.stored, values)
                outcome = "updated" if values or outcome != "unchanged" else "unchanged"
            elif row.pet:
                new.append(stamped({**row.pet, **owner_id}))
                outcome = "created"
            self._file.report.count(outcome)
        await batches.insert_all(self._session, Pet, new)
        await self._update(Pet, changed)

    def _give_up(self, prefix: str, keys: Iterable[str], stored: dict[str, Any] | None, values: dict[str, Any]) -> None:
        for name in keys:
            if name in values and stored is not None and stored[name] is not None:
                self._file.ledger.give_up((prefix + name, stored[name]))

    async def _update(self, model: Any, changed: dict[int, dict[str, Any]]) -> None:
        changes = {row_id: with_name_key(values) for row_id, values in changed.items()}
        await batches.update_each(self._session, model, changes)
        self._updated[model] |= changes.keys() & batches.held_ids(self._session, model)


def _is_known_better(pet: dict[str, Any], stored: dict[str, Any]) -> bool:
    """Tell whether a row only estimates the year of a day that is stored."""
    if not pet.get("birth_date_estimated") or "birth_date" not in pet or stored["birth_date"] is None:
        return False
    return not stored["birth_date_estimated"] and pet["birth_date"].year == stored["birth_date"].year


def _outcome(owner: ImportedOwner | None) -> Outcome:
    """Return what became of the owner, the first time that somebody asks."""
    if owner is None or owner.is_counted or not owner.values:
        return "unchanged"
    owner.is_counted = True
    return "created" if owner.is_new else "updated"


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
