"""Find the owners of a batch of rows, by their keys or by their pets."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError
from sqlmodel.ext.asyncio.session import AsyncSession

from ...models import Pet, User, UserCreate, UserUpdate
from ..statements import key_lookup
from ..statements.chunks import mapped
from ..statements.column_values import valid_values
from .file_format import OWNER
from .file_rows import ImportedFile, ImportedOwner, ImportedRow, non_blank_values
from .key_index import OWNER_KEYS, Key, owner_text


async def find_keyless_owners(session: AsyncSession, file: ImportedFile) -> None:
    """Find the stored owners of rows without an owner key, by the owners' stored pets, on whichever line these are."""
    for batch in file.key_index.keyless_owner_pets():
        await _find_keyless_owners(session, file, batch)


async def _find_keyless_owners(session: AsyncSession, file: ImportedFile, batch: list[tuple[str, Key]]) -> None:
    pets = await key_lookup.fetch_by_keys(session, Pet, (key for _, key in batch))
    owners = await _fetch_owners(session, {pet["owner_id"] for pet in pets.values()})

    def find(pet_of_owner: tuple[str, Key]) -> None:
        text, key = pet_of_owner
        if key in pets and (owner := owners.get(pets[key]["owner_id"])) is not None:
            with suppress(ValidationError):  # The row is rejected later.
                if not _differs(json.loads(text), owner):
                    file.key_index.add_keyless_owner(text, owner["id"])

    await mapped(find, batch)


async def _fetch_owners(session: AsyncSession, ids: set[Any]) -> dict[int, dict[str, Any]]:
    return {owner["id"]: owner for owner in await key_lookup.fetch_columns(session, User, "id", ids - {None})}


async def find_owners(session: AsyncSession, file: ImportedFile, rows: Iterable[ImportedRow]) -> None:
    """Set the owner of each row that has one, or reject the row."""
    with_owner = [row for row in rows if row.owner_values and not row.rejected_fields]
    stored = await key_lookup.fetch_by_keys(session, User, (key for row in with_owner for key in row.owner_keys))
    ids = {row.stored["owner_id"] for row in with_owner if row.stored is not None and not row.owner_keys}
    owners_of_pets = await _fetch_owners(session, ids)
    owners: dict[Any, ImportedOwner] = {}  # By key, by id, or by owner_text() if there is no key.

    def find(row: ImportedRow) -> None:
        with file.rejecting(row, OWNER):
            if row.owner_keys:
                match = file.find_stored(row, row.owner_keys, stored, OWNER)
                _check_transfer(file, row, match)
                row.owner = _keyed_owner(file, row, match, owners)
            elif row.stored is not None and row.stored["owner_id"] in owners_of_pets:
                row.owner = _owner_of_pet(file, row, owners_of_pets[row.stored["owner_id"]], owners)
            else:
                row.owner = _keyless_owner(file, row, owners)
                _check_transfer(file, row, row.owner.stored)

    await mapped(find, with_owner)


def _keyed_owner(
    file: ImportedFile, row: ImportedRow, stored: Mapping[str, Any] | None, owners: dict[Any, ImportedOwner]
) -> ImportedOwner:
    names: list[Any] = [*row.owner_keys, *([stored["id"]] if stored else [])]
    if stored is None:
        # Validate each row: the key index leaves out the values of an invalid row when it merges the others.
        values = valid_values(UserCreate, row.owner_values)
        owner = owners.get(names[0]) or ImportedOwner(values, is_new=True)
    else:
        owner = owners.get(stored["id"]) or ImportedOwner({}, dict(stored))
        values = non_blank_values(UserUpdate.model_validate(row.owner_values))
        # Rows with all keys of the owner are merged already: only a row that lacks one can contradict another row.
        if not row.rejected_fields and any(stored[name] not in (None, values.get(name)) for name in OWNER_KEYS):
            for name in file.key_index.add_owner_values(stored["id"], values):
                file.reject(row, OWNER + name, "differs from another line of the same owner: give one value on both")
        if not row.rejected_fields:
            owner.values |= {name: value for name, value in values.items() if value != stored[name]}
    owners.update(dict.fromkeys(names, owner))
    return owner


def _owner_of_pet(
    file: ImportedFile, row: ImportedRow, stored: dict[str, Any], owners: Mapping[Any, ImportedOwner]
) -> ImportedOwner:
    # An earlier line of the batch may have changed the owner. The changes of earlier batches are stored.
    changed = owners[stored["id"]].values if stored["id"] in owners else {}
    if _differs(row.owner_values, {**stored, **changed}):
        reason = "the owner differs from the pet's stored owner: add owner_external_ref or owner_email to identify it"
        file.reject(row, None, reason)
    return ImportedOwner({}, stored)


def _differs(values: dict[str, Any], stored: dict[str, Any]) -> bool:
    changes = non_blank_values(UserUpdate.model_validate(values))
    return any(stored[name] != value for name, value in changes.items())


def _keyless_owner(file: ImportedFile, row: ImportedRow, owners: dict[Any, ImportedOwner]) -> ImportedOwner:
    text = owner_text(row.owner_values)
    if (user_id := file.key_index.keyless_owner_id(text)) is not None:
        return ImportedOwner({}, {"id": user_id})
    if text not in owners:
        owners[text] = ImportedOwner(valid_values(UserCreate, row.owner_values), is_new=True, keyless_text=text)
    return owners[text]


def _check_transfer(file: ImportedFile, row: ImportedRow, owner: Mapping[str, Any] | None) -> None:
    pet = row.stored
    if pet is not None and (owner is None or owner["id"] != pet["owner_id"]):
        if pet["status"] == "deceased":
            file.reject(row, None, "a deceased pet cannot be transferred: give its stored owner, or none")
        row.pet_values.setdefault("acquired_on", None)  # The stored day is the previous owner's.
