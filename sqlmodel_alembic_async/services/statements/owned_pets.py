"""Update all pets of one owner, for the services of users."""

from typing import Any

import sqlalchemy as sa
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from ...models import Pet
from . import many_rows


async def update_pets_of(
    session: AsyncSession, owner_id: int, values: dict[str, Any], *conditions: sa.ColumnElement[bool]
) -> int:
    """Update the pets of an owner that satisfy the conditions, also in the session, and return how many there are."""
    held = [pet for pet in session.sync_session.identity_map.values() if isinstance(pet, Pet)]
    ids: list[Any] = [pet.id for pet in held if pet.__dict__.get("owner_id") == owner_id]
    changed = await many_rows.update_all(session, Pet, values, col(Pet.owner_id) == owner_id, *conditions)
    # In the session, the UPDATE also changed pets that meanwhile have another owner in the database.
    await many_rows.refresh(session, Pet, ids)
    return changed
