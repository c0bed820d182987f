"""The columns that shapes become."""

from datetime import UTC, datetime

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


def test_a_new_row_gets_the_columns_that_its_shape_lacks() -> None:
    before = datetime.now(UTC)

    values = column_values.new_values(UserCreate(name=" Ada ", email="ADA@Example.com"))

    assert values.keys() == {*UserCreate.model_fields, "name_key", "created_at", "updated_at", "version"}
    assert (values["name"], values["name_key"], values["email"]) == ("Ada", "ada", "ada@example.com")
    assert before <= values["created_at"] == values["updated_at"] <= datetime.now(UTC)
    assert values["version"] == 1


def test_a_changed_name_is_searched_by_its_new_key() -> None:
    assert column_values.changed_values(UserUpdate(name="ADA")) == {"name": "ADA", "name_key": "ada"}
    assert column_values.changed_values(UserUpdate(city="Rome")) == {"city": "Rome"}
    assert column_values.changed_values(UserUpdate()) == {}
