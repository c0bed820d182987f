"""Import the rows of a file batch by batch: find stored pets and owners, then insert and update."""

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from ...errors import AlreadyExistsError, TransactionConflictError, UserNotFoundError
from ...import_report import Outcome
from ...models import Pet, User
from ..statements import key_lookup, many_rows
from ..statements.chunks import mapped
from ..statements.column_values import stamped, with_name_key
from ..statements.execution import dialect_of
from .file_format import OWNER
from .file_rows import PET_KEYS, ImportedFile, ImportedOwner, ImportedRow
from .key_index import OWNER_KEYS
from .owner_matching import find_owners
from .pet_matching import find_pets

_KEYS: dict[Any, Collection[str]] = {User: OWNER_KEYS, Pet: PET_KEYS}
_PREFIXES = {User: OWNER, Pet: ""}

_Change = tuple[dict[str, Any], dict[str, Any]]  # The stored row, and the values that change.


class BatchImport:
    """Imports the batches of one file."""

    def __init__(self, session: AsyncSession, file: ImportedFile) -> None:
        self._session = session
        self._file = file
        self._updated_ids: dict[Any, set[int]] = {User: set(), Pet: set()}

    async def import_rows(self, rows: list[ImportedRow]) -> None:
        """Write the rows that are not rejected."""
        await find_pets(self._session, self._file, rows)
        await find_owners(self._session, self._file, rows)
        accepted = [row for row in rows if not row.rejected_fields]
        await self._write_owners({row.owner: None for row in accepted if row.owner is not None})
        await self._write_pets(accepted)
        self._file.sort_rejections()

    async def refresh_session(self) -> None:
        """Refresh the rows that the session holds and the import updated."""
        for model, ids in self._updated_ids.items():
            await many_rows.refresh(self._session, model, ids)

    @asynccontextmanager
    async def _writing(self, model: Any) -> AsyncIterator[None]:
        """Raise TransactionConflictError if another transaction added a key or deleted an owner since the lookups."""
        try:
            yield
        except (AlreadyExistsError, UserNotFoundError) as error:
            # The lookups found no such key, so another transaction added it; on SQLite there is no other writer.
            is_host_rule = isinstance(error, AlreadyExistsError) and (
                error.field not in _KEYS[model] or dialect_of(self._session, model).name == "sqlite"
            )
            if is_host_rule:
                raise
            message = "another transaction added a key or deleted an owner during the import: try again"
            raise TransactionConflictError(message) from error.__cause__

    async def _write_owners(self, owners: Iterable[ImportedOwner]) -> None:
        new, changed = [], []
        for owner in owners:
            if owner.is_new:
                new.append(owner)
            elif owner.values and owner.stored is not None:
                changed.append((owner.stored, owner.values))
        new_values = await mapped(lambda owner: stamped(owner.values), new)
        async with self._writing(User):
            ids = await many_rows.insert_returning_ids(self._session, User, new_values)
            await mapped(self._set_owner_id, zip(new, ids, strict=True))
            await self._update(User, changed)

    def _set_owner_id(self, inserted: tuple[ImportedOwner, int]) -> None:
        owner, user_id = inserted
        owner.stored = {"id": user_id}
        if owner.keyless_text is not None:
            self._file.key_index.add_keyless_owner(owner.keyless_text, user_id)

    async def _write_pets(self, rows: list[ImportedRow]) -> None:
        written = await mapped(self._pet_values, rows)
        changes = [(row.stored, values) for row, values in zip(rows, written, strict=True) if values]
        async with self._writing(Pet):
            await many_rows.insert_all(self._session, Pet, [values for stored, values in changes if stored is None])
            await self._update(Pet, [(stored, values) for stored, values in changes if stored is not None])

    def _pet_values(self, row: ImportedRow) -> dict[str, Any]:
        """Return the columns of a new pet, or the changed columns of a stored one, and count the row's outcome."""
        owner_id = {"owner_id": row.owner.stored["id"]} if row.owner is not None and row.owner.stored else {}
        values = {**row.pet_values, **owner_id}
        outcome = _owner_outcome(row.owner)
        if row.stored is not None:
            values = {name: value for name, value in values.items() if value != row.stored[name]}
            outcome = "updated" if values or outcome != "unchanged" else "unchanged"
        elif row.pet_values:
            values = stamped(values)
            outcome = "created"
            self._file.report.without_key += not row.pet_keys
        else:
            values = {}
        self._file.report.count(outcome)
        return values

    async def _update(self, model: Any, changed: list[_Change]) -> None:
        await key_lookup.lock(self._session, model, {stored["id"]: stored["version"] for stored, _ in changed})
        await mapped(lambda change: self._add_replaced_keys(model, *change), changed)
        changes = {stored["id"]: with_name_key(values) for stored, values in changed}
        await many_rows.update_each(self._session, model, changes)
        self._updated_ids[model] |= many_rows.held_ids(self._session, model, changes)

    def _add_replaced_keys(self, model: Any, stored: dict[str, Any], values: dict[str, Any]) -> None:
        for name in _KEYS[model]:
            if name in values and stored[name] is not None:
                self._file.key_index.add_replaced_key((_PREFIXES[model] + name, stored[name]))


def _owner_outcome(owner: ImportedOwner | None) -> Outcome:
    """Return the outcome of an owner for its first row, and "unchanged" for its other rows."""
    if owner is None or owner.is_counted or not owner.values:
        return "unchanged"
    owner.is_counted = True
    return "created" if owner.is_new else "updated"
