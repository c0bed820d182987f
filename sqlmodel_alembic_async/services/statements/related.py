"""Load the rows that rows refer to, in one statement for a page of them."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from ...models import Pet, User
from . import chunks, key_lookup
from .execution import dialect_of


async def load_pets(session: AsyncSession, users: Sequence[User]) -> None:
    """Set `pets` of these users, archived pets too, in the order of their ids."""
    ids = [user.id for user in users]
    pets_of: dict[Any, list[Pet]] = {user_id: [] for user_id in ids}
    if ids:
        query = _pets_of(dialect_of(session, Pet).name)
        for pet in await chunks.fetch_all(session, query, {"values": ids}):
            pets_of[pet.owner_id].append(pet)
    for user in users:
        set_committed_value(user, "pets", pets_of[user.id])


async def load_owners(session: AsyncSession, pets: Sequence[Pet]) -> None:
    """Set `owner` of these pets; None for a pet without an owner."""
    ids = {pet.owner_id for pet in pets if pet.owner_id is not None}
    owners: dict[int | None, User] = {user.id: user for user in await key_lookup.fetch_rows(session, User, "id", ids)}
    for pet in pets:
        set_committed_value(pet, "owner", owners.get(pet.owner_id))


@cache
def _pets_of(dialect: str) -> Any:
    if dialect != "postgresql":
        return select(Pet).where(key_lookup.in_values(col(Pet.owner_id))).order_by(col(Pet.id))
    pets = sa.inspect(Pet).local_table
    value = key_lookup.unnested(pets.c.owner_id)
    # OFFSET 0: the planner must look up one owner at a time, as for one row of a key.
    found = sa.select(pets).where(pets.c.owner_id == value.c.value).offset(sa.literal_column("0")).lateral()
    pet = aliased(Pet, found)
    return select(pet).select_from(value.join(found, sa.true())).order_by(found.c.id)
