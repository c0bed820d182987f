"""The columns that shapes become."""

import pytest
from pydantic import ValidationError

from sqlmodel_alembic_async import (
    AsyncSession,
    PetUpdate,
    UserCreate,
    UserUpdate,
    create_user,
    create_users,
    update_user,
)
from sqlmodel_alembic_async.services.statements import column_values


def test_an_omitted_field_is_left_and_none_clears() -> None:
    assert column_values.changed_values(PetUpdate(breed=None)) == {"breed": None}


async def test_a_shape_that_was_broken_after_its_validation_is_refused(session: AsyncSession) -> None:
    broken = UserCreate(name="Ada").model_copy(update={"name": ""})
    broken_change = UserUpdate(name="Ada").model_copy(update={"name": ""})

    for work in (create_user(session, broken), create_users(session, [broken]), update_user(session, 1, broken_change)):
        with pytest.raises(ValidationError):
            await work
        await session.rollback()
