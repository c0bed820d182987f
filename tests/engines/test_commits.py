"""A COMMIT that would not commit the whole transaction is refused."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sqlmodel_alembic_async import AsyncSession, Database, DatabaseError, PetCreate, count_pets, create_pet

pytestmark = pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)


async def fail(session: AsyncSession) -> None:
    with pytest.raises(DBAPIError):
        await session.exec(text("SELECT 1 / 0"))


async def test_a_commit_after_a_failed_statement_is_no_silent_rollback(db: Database) -> None:
    with pytest.raises(DatabaseError, match="begin_nested"):
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Lost"))
            await fail(session)

    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))
    async with db.reading() as session:
        assert await count_pets(session) == 1


async def test_a_rollback_to_a_savepoint_makes_good_for_a_failed_statement(db: Database) -> None:
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))
        savepoint = await session.begin_nested()
        await fail(session)
        await savepoint.rollback()

    async with db.reading() as session:
        assert await count_pets(session) == 1
