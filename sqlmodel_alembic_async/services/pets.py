"""Pets: create, read, change, transfer, archive and delete one. `lists.py` lists them."""

from collections.abc import Iterable
from datetime import date

from pydantic import ConfigDict, TypeAdapter
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from ..errors import PetDeceasedError, PetNotFoundError, UserNotFoundError
from ..fields import Date, Microchip, is_id
from ..models import Pet, PetCreate, PetUpdate
from .statements import execution, many_rows, one_row, related, row_locks
from .statements.filters import FILTER_CONFIG
from .statements.one_row import OnSimilar

_MICROCHIP: TypeAdapter[str | None] = TypeAdapter(Microchip, config=ConfigDict(title="microchip", **FILTER_CONFIG))
_DATE = TypeAdapter(Date, config=ConfigDict(title="on", **FILTER_CONFIG))


async def create_pet(session: AsyncSession, data: PetCreate, *, on_similar: OnSimilar = "allow") -> Pet:
    """Add a pet and return it with its id.

    The row is written by one INSERT. If the application listens to events of SQLAlchemy's unit of work, such as
    before_insert or after_flush, it is written by a flush, which fires them.

    Args:
        session: The session to write with; the caller commits.
        data: The values of the new pet; `weight_g` is in grams, `microchip` as in ISO 11784.
        on_similar: "allow" inserts in any case. "error" first looks for pets that find_duplicate_pets() would put into
            one group with the new one, and inserts only if there are none. A microchip in the notes of another pet
            counts only where both have the same name. It locks nothing: two transactions at the same time may insert
            similar pets.

    Raises:
        UserNotFoundError: No user has the id `owner_id`.
        AlreadyExistsError: Another pet has this `microchip` or `external_ref`; `field` names it.
        SimilarExistsError: Similar pets exist and on_similar is "error"; `candidates` holds them.
        TypeError: `data` is not a PetCreate, or has fields that a PetCreate does not have.
        ValidationError: `data` was changed to values that the shape refuses.
        ValueError: `on_similar` is neither "allow" nor "error".
        DatabaseError: The statement failed.

    """
    data = one_row.expect(PetCreate, data)
    if on_similar != "allow":
        from .duplicates.search import refuse_similar

        await refuse_similar(session, Pet, data, on_similar)
    try:
        return await one_row.insert(session, Pet, data)
    except UserNotFoundError as error:
        raise UserNotFoundError(data.owner_id) from error.__cause__


async def create_pets(session: AsyncSession, pets: Iterable[PetCreate]) -> int:
    """Add pets in batches of 1,000 and return how many were added.

    Memory stays constant, however many there are. After an error no batch is kept: the transaction, or the savepoint
    around the call, can only be rolled back.

    Args:
        session: The session to write with; the caller commits.
        pets: The values of the new pets, from any iterable or generator.

    Raises:
        UserNotFoundError: No user has the `owner_id` of one of them; `key` is None.
        AlreadyExistsError: Another pet has the `microchip` or `external_ref` of one of them; `field` names it.
        TypeError: An item is not a PetCreate, or has fields that a PetCreate does not have.
        ValidationError: An item was changed to values that the shape refuses.
        DatabaseError: A statement failed.

    """
    return await many_rows.insert_many(session, Pet, PetCreate, pets)


async def get_pet(session: AsyncSession, pet_id: int, *, with_owner: bool = False, for_update: bool = False) -> Pet:
    """Return a pet, archived or not, as the database holds it now.

    Args:
        session: The session to read with.
        pet_id: The id of the pet.
        with_owner: Load `pet.owner`, in a second statement if there is one. Without it, reading `pet.owner` raises
            InvalidRequestError.
        for_update: Lock the pet, but not the owner, until the end of the transaction, to change the pet by what was
            read: until then, another transaction waits to change or to lock it. SQLite locks the whole database for
            other writers, which a transaction() does at its beginning; another session does it now, in one more
            statement.

    Raises:
        PetNotFoundError: No pet has this id.
        TypeError: `pet_id` is not an int.
        StorageError: `for_update` is true, and the session is read-only, as that of reading() is.
        TransactionConflictError: `for_update` is true, and the lock was not released in time, or the transaction read
            before and cannot see what others changed since.
        DatabaseError: The statement failed.

    """
    fetch = row_locks.fetch_locked if for_update else one_row.fetch_by_id
    pet = _found(await fetch(session, Pet, pet_id), pet_id)
    if with_owner:
        await related.load_owners(session, [pet])
    return pet


async def find_pet_by_microchip(session: AsyncSession, microchip: str) -> Pet | None:
    """Return the pet with this microchip, archived or not, or None; blank finds None.

    Spaces, "-", "." and "*" in it are ignored.

    Raises:
        ValidationError: `microchip` is not a valid number.
        DatabaseError: The statement failed.

    """
    chip = _MICROCHIP.validate_python(microchip)
    if chip is None:
        return None
    return await execution.fetch_one(session, select(Pet).where(col(Pet.microchip) == chip))


async def update_pet(
    session: AsyncSession, pet_id: int, changes: PetUpdate, *, expected_version: int | None = None
) -> Pet:
    """Change the fields that `changes` sets, and return the pet. To change the owner, use transfer_pet().

    Args:
        session: The session to write with; the caller commits.
        pet_id: The id of the pet.
        changes: The new values: an omitted field stays, None clears it.
        expected_version: The `version` that the caller read; None changes any version.

    Raises:
        PetNotFoundError: No pet has this id.
        StaleVersionError: The pet is not at the expected version.
        AlreadyExistsError: Another pet has this `microchip` or `external_ref`; `field` names it.
        InvalidValueError: The new values contradict what is stored; `constraint` names the rule.
        TypeError: `changes` is not a PetUpdate, or has fields that a PetUpdate does not have; or an id or a version is
            not an int.
        ValidationError: `changes` was changed to values that the shape refuses.
        DatabaseError: The statement failed.

    """
    changes = one_row.expect(PetUpdate, changes)
    return _found(await one_row.patch(session, Pet, pet_id, changes, expected_version), pet_id)


async def transfer_pet(session: AsyncSession, pet_id: int, owner_id: int | None, *, on: date | None = None) -> Pet:
    """Change the owner of a pet together with `acquired_on`, and return the pet.

    Args:
        session: The session to write with; the caller commits.
        pet_id: The id of the pet.
        owner_id: The id of the new owner, or None to leave the pet without an owner.
        on: The first day with the new owner: a date, or text as YYYY-MM-DD; None is today by the local clock.

    Raises:
        PetNotFoundError: No pet has this id.
        UserNotFoundError: No user has the id `owner_id`.
        PetDeceasedError: The pet is deceased.
        TypeError: An id is not an int.
        ValidationError: `on` is not a date.
        DatabaseError: The statement failed.

    """
    if owner_id is not None and not is_id(owner_id):
        raise UserNotFoundError(owner_id)
    day = date.today() if on is None else _DATE.validate_python(on)
    change = {"owner_id": owner_id, "acquired_on": None if owner_id is None else day}
    try:
        pet = await one_row.update(session, Pet, pet_id, change, col(Pet.status) != "deceased")
    except UserNotFoundError as error:
        raise UserNotFoundError(owner_id) from error.__cause__
    if pet is None:
        _found(await one_row.fetch_as_written(session, Pet, pet_id), pet_id)
        raise PetDeceasedError(pet_id)
    return pet


async def archive_pet(session: AsyncSession, pet_id: int) -> Pet:
    """Hide a pet from lists and searches, and return it. Idempotent: keeps the first `archived_at`.

    Raises:
        PetNotFoundError: No pet has this id.
        TypeError: `pet_id` is not an int.
        DatabaseError: The statement failed.

    """
    return _found(await one_row.archive(session, Pet, pet_id), pet_id)


async def restore_pet(session: AsyncSession, pet_id: int) -> Pet:
    """Show an archived pet in lists and searches again, and return it.

    Raises:
        PetNotFoundError: No pet has this id.
        TypeError: `pet_id` is not an int.
        DatabaseError: The statement failed.

    """
    return _found(await one_row.update(session, Pet, pet_id, {"archived_at": None}), pet_id)


async def delete_pet(session: AsyncSession, pet_id: int) -> None:
    """Delete a pet.

    Raises:
        PetNotFoundError: No pet has this id.
        ConflictError: A row of a host application's table refers to the pet.
        TypeError: `pet_id` is not an int.
        DatabaseError: The statement failed.

    """
    if not await one_row.delete(session, Pet, pet_id):
        raise PetNotFoundError(pet_id)


def _found(pet: Pet | None, pet_id: int) -> Pet:
    if pet is None:
        raise PetNotFoundError(pet_id)
    return pet
