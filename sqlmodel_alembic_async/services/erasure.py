"""Erase the personal data of a user, and keep the rows for statistics."""

import sqlalchemy as sa
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from ..errors import UserNotFoundError
from ..fields import name_key
from ..models import Pet, User, UserCreate
from .statements import one_row
from .statements.owned_pets import update_pets_of

_NAME = "Anonymised"

# Derived from the shape, so that a new column counts as personal too.
_PERSONAL = dict.fromkeys(UserCreate.model_fields) | {"name": _NAME}
# Notes may name the owner, and an external_ref leads to data about the owner in another system.
_PERSONAL_OF_PETS = ("notes", "external_ref")


async def anonymise_user(session: AsyncSession, user_id: int) -> User:
    """Erase the personal data of a user, and the notes and external_ref of the user's pets, and return the user.

    The rows of the user and of the pets stay, and so do microchip numbers. The name becomes "Anonymised", and every
    other field that a caller can set becomes None. It is idempotent: a second call changes nothing.

    It does not cover notes of other users or of former pets, tables of the host application, logs and backups.

    Raises:
        UserNotFoundError: No user has this id.
        TypeError: The id is not an integer.
        DatabaseError: The database failed, or the session is closed or used by another task.

    """
    differs = sa.or_(*(col(getattr(User, name)).is_distinct_from(value) for name, value in _PERSONAL.items()))
    user = await one_row.update(session, User, user_id, {**_PERSONAL, "name_key": name_key(_NAME)}, differs)
    if user is None and (user := await one_row.fetch_as_written(session, User, user_id)) is None:
        raise UserNotFoundError(user_id)
    has_personal_data = sa.or_(*(col(getattr(Pet, name)).is_not(None) for name in _PERSONAL_OF_PETS))
    await update_pets_of(session, user_id, dict.fromkeys(_PERSONAL_OF_PETS), has_personal_data)
    return user
