"""Find the owners of a batch of rows, by their keys or by their pets."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from ...models import User, UserCreate, UserUpdate
from ..statements import key_lookup
from ..statements.chunks import mapped
from ..statements.column_values import valid_values
from .file_format import OWNER
from .file_rows import ImportedFile, ImportedOwner, ImportedRow, non_blank_values
from .key_index import OWNER_KEYS, owner_text


async def find_owners(session: AsyncSession, file: ImportedFile, rows: Iterable[ImportedRow]) -> None:
    """Set the owner of each row that has one, or reject the row."""
    with_owner = [row for row in rows if row.owner_values and not row.rejected_fields]
    stored = await key_lookup.fetch_by_keys(session, User, (key for row in with_owner for key in row.owner_keys))
    ids = {row.stored["owner_id"] for row in with_owner if row.stored is not None and not row.owner_keys} - {None}
    owners_of_pets = {owner["id"]: owner for owner in await key_lookup.fetch_columns(session, User, "id", ids)}
    owners: dict[Any, ImportedOwner] = {}  # By key and by id; an owner without a key by owner_text().

    def find(row: ImportedRow) -> None:
        with file.rejecting(row, OWNER):
            if row.owner_keys:
                match = file.find_stored(row, row.owner_keys, stored, OWNER)
                row.owner = _keyed_owner(file, row, match, owners)
            elif row.stored is not None and row.stored["owner_id"] in owners_of_pets:
                row.owner = _owner_of_pet(file, row, owners_of_pets[row.stored["owner_id"]])
            else:
                row.owner = _keyless_owner(file, row, owners)
        if row.owner is not None and row.stored is not None:
            _check_transfer(file, row, row.stored, row.owner)

    # First the stored pets: they identify an owner without a key, also for the other rows of that owner.
    await mapped(find, sorted(with_owner, key=lambda row: row.stored is None or bool(row.owner_keys)))


def _keyed_owner(
    file: ImportedFile, row: ImportedRow, stored: Mapping[str, Any] | None, owners: dict[Any, ImportedOwner]
) -> ImportedOwner:
    names: list[Any] = [*row.owner_keys, *([stored["id"]] if stored else [])]
    if stored is None:
        owner = owners.get(names[0]) or ImportedOwner(valid_values(UserCreate, row.owner_values), is_new=True)
    else:
        owner = owners.get(stored["id"]) or ImportedOwner({}, dict(stored))
        values = non_blank_values(UserUpdate.model_validate(row.owner_values))
        # The key index has merged the rows that share a key. Only a row without one of the stored keys can differ.
        if any(stored[name] not in (None, values.get(name)) for name in OWNER_KEYS):
            for name in file.key_index.add_owner_values(stored["id"], values):
                file.reject(row, OWNER + name, "differs from another line of the same owner: give one value on both")
        if not row.rejected_fields:
            owner.values |= {name: value for name, value in values.items() if value != stored[name]}
    owners.update(dict.fromkeys(names, owner))
    return owner


def _owner_of_pet(file: ImportedFile, row: ImportedRow, stored: dict[str, Any]) -> ImportedOwner:
    values = non_blank_values(UserUpdate.model_validate(row.owner_values))
    if any(stored[name] != value for name, value in values.items()):
        reason = "the owner differs from the pet's stored owner: add owner_external_ref or owner_email to identify it"
        file.reject(row, None, reason)
    else:
        file.key_index.add_keyless_owner(owner_text(row.owner_values), stored["id"])
    return ImportedOwner({}, stored)


def _keyless_owner(file: ImportedFile, row: ImportedRow, owners: dict[Any, ImportedOwner]) -> ImportedOwner:
    text = owner_text(row.owner_values)
    if (user_id := file.key_index.keyless_owner_id(text)) is not None:
        return ImportedOwner({}, {"id": user_id})
    if text not in owners:
        owners[text] = ImportedOwner(valid_values(UserCreate, row.owner_values), is_new=True, keyless_text=text)
    return owners[text]


def _check_transfer(file: ImportedFile, row: ImportedRow, pet: dict[str, Any], owner: ImportedOwner) -> None:
    if owner.stored is None or owner.stored["id"] != pet["owner_id"]:
        if pet["status"] == "deceased":
            file.reject(row, None, "a deceased pet cannot be transferred: give its stored owner, or none")
        row.pet_values.setdefault("acquired_on", None)  # The stored day is the previous owner's.
