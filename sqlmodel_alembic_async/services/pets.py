"""What callers do with pets."""

from collections.abc import AsyncIterator, Iterable
from datetime import date
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from typing_extensions import Unpack

from ..errors import PetDeceasedError, PetNotFoundError, UserNotFoundError
from ..fields import Breed, Date, Flag, Id, Microchip, Sex, Species, Status, is_id
from ..models import Pet, PetCreate, PetUpdate
from ..undo import remember
from .statements import execution, many_rows, one_row, pages
from .statements.filters import FILTER_CONFIG, RowFilters, filter_adapter, null_term, row_terms, validated
from .statements.one_row import OnSimilar
from .statements.pages import OrderBy, Page
from .statements.prebuilt import Terms


class PetFilters(RowFilters, total=False):
    """What narrows a list of pets; `born_from` and `born_until` are inclusive."""

    owner_id: Id
    ownerless: Flag
    species: Species
    breed: Breed
    sex: Sex
    status: Status
    born_from: Date
    born_until: Date
    microchipped: Flag


_FILTERS = filter_adapter(PetFilters)
_MICROCHIP: TypeAdapter[str | None] = TypeAdapter(Microchip, config=FILTER_CONFIG)
_DATE = TypeAdapter(Date, config=FILTER_CONFIG)


async def create_pet(session: AsyncSession, data: PetCreate, *, on_similar: OnSimilar = "allow") -> Pet:
    """Add a pet; raise UserNotFoundError if its owner does not exist, AlreadyExistsError if its chip is taken.

    With on_similar="error", look first, and raise SimilarExistsError for what find_duplicate_pets() would show; a
    number in the notes of another pet is seen if the names are the same.
    """
    if on_similar != "allow":
        from .duplicates.search import refuse_similar  # nobody else waits for it

        await refuse_similar(session, Pet, one_row.expect(PetCreate, data), on_similar)
    try:
        return await one_row.insert(session, Pet, one_row.expect(PetCreate, data))
    except UserNotFoundError as error:
        raise UserNotFoundError(data.owner_id) from error.__cause__


async def create_pets(session: AsyncSession, pets: Iterable[PetCreate]) -> int:
    """Add pets batch by batch, and return how many."""
    return await many_rows.insert_many(session, Pet, PetCreate, pets)


async def get_pet(session: AsyncSession, pet_id: int) -> Pet:
    """Return a pet; raise PetNotFoundError if there is none."""
    return _found(await one_row.fetch_by_id(session, Pet, pet_id), pet_id)


async def find_pet_by_microchip(session: AsyncSession, microchip: str) -> Pet | None:
    """Return the pet with this microchip, in any spelling of its number, or None."""
    chip = _MICROCHIP.validate_python(microchip)
    if chip is None:
        return None
    return await execution.fetch_one(session, select(Pet).where(col(Pet.microchip) == chip))


async def list_pets(
    session: AsyncSession,
    *,
    order_by: OrderBy = "name",
    limit: int = 50,
    after: str | None = None,
    offset: int = 0,
    **filters: Unpack[PetFilters],
) -> Page[Pet]:
    """Return one page of pets; `after` is the `next` of the page before it."""
    terms = pet_terms(filters)
    return await pages.fetch_page(session, Pet, terms, order_by=order_by, limit=limit, after=after, offset=offset)


async def count_pets(session: AsyncSession, **filters: Unpack[PetFilters]) -> int:
    """Return how many pets there are."""
    return await many_rows.count(session, Pet, pet_terms(filters))


async def stream_pets(
    session: AsyncSession, *, order_by: OrderBy = "name", **filters: Unpack[PetFilters]
) -> AsyncIterator[Pet]:
    """Yield every pet in constant memory. Who changes what it yields streams by id: those rows keep their place."""
    async for pet in pages.stream(session, Pet, pet_terms(filters), order_by=order_by):
        yield pet


async def update_pet(
    session: AsyncSession, pet_id: int, changes: PetUpdate, *, expected_version: int | None = None
) -> Pet:
    """Change the columns given; raise StaleVersionError if the pet is no longer at the expected version."""
    one_row.expect(PetUpdate, changes)
    return _found(await one_row.patch(session, Pet, pet_id, changes, expected_version), pet_id)


async def transfer_pet(session: AsyncSession, pet_id: int, owner_id: int | None, *, on: date | None = None) -> Pet:
    """Give a pet to another owner `on` a day, by default today; None releases it. PetDeceasedError for a dead one."""
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


async def change_pets_of(
    session: AsyncSession, owner_id: int, values: dict[str, Any], *conditions: sa.ColumnElement[bool]
) -> int:
    """Change the pets of an owner, and return how many; what is done to users needs it."""
    held = [pet for pet in session.sync_session.identity_map.values() if isinstance(pet, Pet)]
    ids: list[Any] = [pet.id for pet in held if pet.__dict__.get("owner_id") == owner_id]
    remember(session.sync_session, Pet, ids)
    changed = await many_rows.update_all(session, Pet, values, col(Pet.owner_id) == owner_id, *conditions)
    # Read anew: one that has another owner meanwhile was not changed, but in the session it looks as if it were.
    await many_rows.refresh(session, Pet, ids)
    return changed


async def archive_pet(session: AsyncSession, pet_id: int) -> Pet:
    """Hide a pet from lists and searches; archived again, it keeps its first moment."""
    return _found(await one_row.archive(session, Pet, pet_id), pet_id)


async def restore_pet(session: AsyncSession, pet_id: int) -> Pet:
    """Show an archived pet again."""
    return _found(await one_row.update(session, Pet, pet_id, {"archived_at": None}), pet_id)


async def delete_pet(session: AsyncSession, pet_id: int) -> None:
    """Delete a pet; raise PetNotFoundError if there is none."""
    if not await one_row.delete(session, Pet, pet_id):
        raise PetNotFoundError(pet_id)


def pet_terms(filters: PetFilters) -> Terms:
    """Return what the filters ask for."""
    filters = validated(_FILTERS, filters, PetFilters.__annotations__)
    terms = row_terms(filters)
    for name in ("owner_id", "species", "breed", "sex", "status"):
        if name in filters:
            terms |= null_term(name, True) if filters[name] is None else {(name, "eq"): filters[name]}
    if "ownerless" in filters:
        terms |= null_term("owner_id", filters["ownerless"])
    if "microchipped" in filters:
        terms |= null_term("microchip", not filters["microchipped"])
    if "born_from" in filters:
        terms["birth_date", "ge"] = filters["born_from"]
    if "born_until" in filters:
        terms["birth_date", "le"] = filters["born_until"]
    return terms


def _found(pet: Pet | None, pet_id: int) -> Pet:
    if pet is None:
        raise PetNotFoundError(pet_id)
    return pet
