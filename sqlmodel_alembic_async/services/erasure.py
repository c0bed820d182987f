"""What is personal goes, what is counted stays."""

import sqlalchemy as sa
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from ..errors import UserNotFoundError
from ..fields import name_key
from ..models import Pet, User, UserCreate
from .pets import change_pets_of
from .statements import one_row

_NAME = "Anonymised"

# Whatever a caller can say of a user is personal, a column that is yet to come included.
_PERSONAL = dict.fromkeys(UserCreate.model_fields) | {"name": _NAME}
# Free text may name the owner, and a key leads to whatever the other system knows.
_PERSONAL_OF_PETS = ("notes", "external_ref")


async def anonymise_user(session: AsyncSession, user_id: int) -> User:
    """Erase all that is personal about a user, and the notes and external_ref of their pets; both stay countable."""
    differs = sa.or_(*(col(getattr(User, name)).is_distinct_from(value) for name, value in _PERSONAL.items()))
    user = await one_row.update(session, User, user_id, {**_PERSONAL, "name_key": name_key(_NAME)}, differs)
    if user is None and (user := await one_row.fetch_as_written(session, User, user_id)) is None:
        raise UserNotFoundError(user_id)
    known = sa.or_(*(col(getattr(Pet, name)).is_not(None) for name in _PERSONAL_OF_PETS))
    await change_pets_of(session, user_id, dict.fromkeys(_PERSONAL_OF_PETS), known)
    return user
