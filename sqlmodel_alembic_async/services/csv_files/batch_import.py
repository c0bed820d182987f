"""A batch of an import: its rows are matched with stored pets and owners, checked, and written."""

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from ...errors import AlreadyExistsError, TransactionConflictError, UserNotFoundError
from ...import_report import Outcome
from ...models import Pet, PetCreate, PetUpdate, User, check_agreement
from ..statements import key_lookup, many_rows
from ..statements.chunks import mapped
from ..statements.column_values import stamped, valid_values, with_name_key
from ..statements.execution import dialect_of
from .file_format import OWNER
from .file_rows import PET_KEYS, ImportedFile, ImportedOwner, ImportedRow, given
from .key_index import OWNER_KEYS
from .owner_matching import find_owners

_SOME_ID = 1  # Stands for an owner's id where only whether there is an owner matters.
_KEYS: dict[Any, Collection[str]] = {User: OWNER_KEYS, Pet: PET_KEYS}
_PREFIXES = {User: OWNER, Pet: ""}

_Change = tuple[dict[str, Any], dict[str, Any]]  # What is stored, and what of it changes.


class BatchImport:
    """Imports one batch after the other, and knows what of it the session holds."""

    def __init__(self, session: AsyncSession, file: ImportedFile) -> None:
        self._session = session
        self._file = file
        self._updated: dict[Any, set[int]] = {User: set(), Pet: set()}

    async def take(self, rows: list[ImportedRow]) -> None:
        """Write the rows that nothing is wrong with."""
        await self._find_pets(rows)
        await find_owners(self._session, self._file, rows)
        good = [row for row in rows if not row.bad_fields]
        await self._write_owners({row.owner: None for row in good if row.owner is not None})
        await self._write_pets(good)
        self._file.sort_rejections()

    async def refresh_session(self) -> None:
        """Read anew what the session holds and the import changed."""
        for model, ids in self._updated.items():
            await many_rows.refresh(self._session, model, ids)

    @asynccontextmanager
    async def _writing(self, model: Any) -> AsyncIterator[None]:
        """Report a key that another transaction stored, or an owner that it deleted, since the rows were looked up."""
        try:
            yield
        except (AlreadyExistsError, UserNotFoundError) as error:
            # The stored keys were looked up, and no two rows of the file claim one. SQLite has one writer at a time.
            is_host_rule = isinstance(error, AlreadyExistsError) and (
                error.field not in _KEYS[model] or dialect_of(self._session, model).name == "sqlite"
            )
            if is_host_rule:
                raise
            message = "another transaction stored a key, or deleted an owner, of this file meanwhile: try again"
            raise TransactionConflictError(message) from error.__cause__

    async def _find_pets(self, rows: list[ImportedRow]) -> None:
        stored = await key_lookup.fetch_by_keys(self._session, Pet, (key for row in rows for key in row.pet_keys))
        await mapped(lambda row: self._match(row, stored), rows)

    def _match(self, row: ImportedRow, stored: dict[tuple[str, str], dict[str, Any]]) -> None:
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

    async def _write_owners(self, owners: Iterable[ImportedOwner]) -> None:
        new, changed = [], []
        for owner in owners:
            if owner.is_new:
                new.append(owner)
            elif owner.values and owner.stored is not None:
                changed.append((owner.stored, owner.values))
        values = await mapped(lambda owner: stamped(owner.values), new)
        async with self._writing(User):
            ids = await many_rows.insert_returning_ids(self._session, User, values)
            await mapped(self._remember, zip(new, ids, strict=True))
            await self._update(User, changed)

    def _remember(self, created: tuple[ImportedOwner, int]) -> None:
        owner, user_id = created
        owner.stored = {"id": user_id}
        if owner.cells is not None:
            self._file.ledger.remember_owner(owner.cells, user_id)

    async def _write_pets(self, good: list[ImportedRow]) -> None:
        written = await mapped(self._to_write, good)
        rows = [(row.stored, values) for row, values in zip(good, written, strict=True) if values]
        async with self._writing(Pet):
            await many_rows.insert_all(self._session, Pet, [values for stored, values in rows if stored is None])
            await self._update(Pet, [(stored, values) for stored, values in rows if stored is not None])

    def _to_write(self, row: ImportedRow) -> dict[str, Any]:
        """Return the columns of a new pet, or those that change of a stored one, and count what becomes of the row."""
        owner_id = {"owner_id": row.owner.stored["id"]} if row.owner is not None and row.owner.stored else {}
        values = {**row.pet, **owner_id}
        outcome = _outcome(row.owner)
        if row.stored is not None:
            values = {name: value for name, value in values.items() if value != row.stored[name]}
            outcome = "updated" if values or outcome != "unchanged" else "unchanged"
        elif row.pet:
            values = stamped(values)
            outcome = "created"
        else:
            values = {}
        self._file.report.count(outcome)
        return values

    async def _update(self, model: Any, changed: list[_Change]) -> None:
        await key_lookup.lock(self._session, model, {stored["id"]: stored["version"] for stored, _ in changed})
        await mapped(lambda change: self._give_up(model, *change), changed)
        changes = {stored["id"]: with_name_key(values) for stored, values in changed}
        await many_rows.update_each(self._session, model, changes)
        self._updated[model] |= changes.keys() & many_rows.held_ids(self._session, model)

    def _give_up(self, model: Any, stored: dict[str, Any], values: dict[str, Any]) -> None:
        for name in _KEYS[model]:
            if name in values and stored[name] is not None:
                self._file.ledger.give_up((_PREFIXES[model] + name, stored[name]))


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
