"""The owners of a batch of rows: found by their keys or by their pet, or new."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from ...models import User, UserCreate, UserUpdate
from ..statements import key_lookup
from ..statements.chunks import mapped
from ..statements.column_values import valid_values
from .file_format import OWNER
from .file_rows import ImportedFile, ImportedOwner, ImportedRow, given
from .key_index import OWNER_KEYS, half


async def find_owners(session: AsyncSession, file: ImportedFile, rows: Iterable[ImportedRow]) -> None:
    """Give each row its owner, or reject it."""
    with_owner = [row for row in rows if row.owner_cells and not row.bad_fields]
    stored = await key_lookup.fetch_by_keys(session, User, (key for row in with_owner for key in row.owner_keys))
    ids = {row.stored["owner_id"] for row in with_owner if row.stored is not None and not row.owner_keys} - {None}
    present = {owner["id"]: owner for owner in await key_lookup.fetch_columns(session, User, "id", ids)}
    owners: dict[Any, ImportedOwner] = {}  # By key, by id, and those without a key by their cells.

    def find(row: ImportedRow) -> None:
        with file.rejecting(row, OWNER):
            if row.owner_keys:
                match = file.one(row, row.owner_keys, stored, OWNER)
                row.owner = _keyed_owner(file, row, match, owners)
            elif row.stored is not None and row.stored["owner_id"] in present:
                row.owner = _present_owner(file, row, present[row.stored["owner_id"]])
            else:
                row.owner = _unkeyed_owner(file, row, owners)
        if row.owner is not None and row.stored is not None:
            _check_transfer(file, row, row.stored, row.owner)

    # A pet that is stored tells who an owner without a key is, also for the other rows of that owner.
    await mapped(find, sorted(with_owner, key=lambda row: row.stored is None or bool(row.owner_keys)))


def _keyed_owner(
    file: ImportedFile, row: ImportedRow, stored: Mapping[str, Any] | None, owners: dict[Any, ImportedOwner]
) -> ImportedOwner:
    names: list[Any] = [*row.owner_keys, *([stored["id"]] if stored else [])]
    if stored is None:
        owner = owners.get(names[0]) or ImportedOwner(valid_values(UserCreate, row.owner_cells), is_new=True)
    else:
        owner = owners.get(stored["id"]) or ImportedOwner({}, dict(stored))
        values = given(UserUpdate.model_validate(row.owner_cells))
        # Only rows that leave out one of the stored keys can have this owner and not be known to say so.
        if any(stored[name] not in (None, values.get(name)) for name in OWNER_KEYS):
            for name in file.ledger.contradicted(stored["id"], values):
                file.reject(row, OWNER + name, "differs from another line, which has the same owner")
        if not row.bad_fields:
            owner.values |= {name: value for name, value in values.items() if value != stored[name]}
    owners.update(dict.fromkeys(names, owner))
    return owner


def _present_owner(file: ImportedFile, row: ImportedRow, stored: dict[str, Any]) -> ImportedOwner:
    named = given(UserUpdate.model_validate(row.owner_cells))
    if any(stored[name] != value for name, value in named.items()):
        file.reject(row, None, "names an owner who is not this pet's, and no key to find another one by")
    else:
        file.ledger.remember_owner(half(row.owner_cells), stored["id"])
    return ImportedOwner({}, stored)


def _unkeyed_owner(file: ImportedFile, row: ImportedRow, owners: dict[Any, ImportedOwner]) -> ImportedOwner:
    cells = half(row.owner_cells)
    if (user_id := file.ledger.known_owner(cells)) is not None:
        return ImportedOwner({}, {"id": user_id})
    if cells not in owners:
        owners[cells] = ImportedOwner(valid_values(UserCreate, row.owner_cells), is_new=True, cells=cells)
    return owners[cells]


def _check_transfer(file: ImportedFile, row: ImportedRow, pet: dict[str, Any], owner: ImportedOwner) -> None:
    if owner.stored is None or owner.stored["id"] != pet["owner_id"]:
        if pet["status"] == "deceased":
            file.reject(row, None, "gives a deceased pet to another owner")
        row.pet.setdefault("acquired_on", None)  # The day belonged to the owner before.
