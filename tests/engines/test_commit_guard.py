"""A COMMIT that would not commit the whole transaction is refused."""

from contextlib import nullcontext

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, PendingRollbackError
from sqlalchemy.util import await_

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    DatabaseError,
    DatabaseUnavailableError,
    PetCreate,
    PetUpdate,
    count_pets,
    create_pet,
    list_pets,
    update_pet,
)
from sqlmodel_alembic_async.engines import BEGIN

on_postgresql = pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
on_mariadb = pytest.mark.parametrize("engine_name", ["mariadb"], indirect=True)
on_sqlite = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)


async def fail(session: AsyncSession) -> None:
    with pytest.raises(DBAPIError):
        await session.exec(text("SELECT 1 / 0"))


@on_postgresql
async def test_a_commit_after_a_failed_statement_is_no_silent_rollback(db: Database) -> None:
    with pytest.raises(DatabaseError, match="begin_nested"):
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Lost"))
            await fail(session)

    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))
    async with db.reading() as session:
        assert await count_pets(session) == 1


@on_postgresql
async def test_a_rollback_to_a_savepoint_makes_good_for_a_failed_statement(db: Database) -> None:
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))
        savepoint = await session.begin_nested()
        await fail(session)
        await savepoint.rollback()

    async with db.reading() as session:
        assert await count_pets(session) == 1


@on_sqlite
async def test_a_transaction_that_sqlite_ended_itself_is_not_committed_by_half(db: Database) -> None:
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))

    async with db.session() as session:
        await create_pet(session, PetCreate(name="Lost"))
        connection = await session.connection()
        with pytest.raises(IntegrityError):
            await connection.exec_driver_sql("INSERT OR ROLLBACK INTO pet (id, name) VALUES (1, 'Rex')")
        await create_pet(session, PetCreate(name="Half"))
        with pytest.raises(PendingRollbackError):
            await session.commit()

    async with db.reading() as session:
        assert await count_pets(session) == 1


@on_sqlite
async def test_a_transaction_that_could_not_begin_begins_with_the_next_statement(
    db: Database, migrated_url: URL
) -> None:
    url = str(migrated_url)
    async with Database(url, connect_args={"timeout": 0.01}) as impatient, impatient.session() as session:
        connection = await session.connection(execution_options={BEGIN: "IMMEDIATE"})
        async with db.transaction() as other:
            await create_pet(other, PetCreate(name="Rex"))
            with pytest.raises(OperationalError, match="locked"):
                await connection.exec_driver_sql("SELECT 1")
        await create_pet(session, PetCreate(name="Max"))
        await session.commit()

    async with db.reading() as session:
        assert await count_pets(session) == 2


@on_sqlite
async def test_a_connection_that_is_closed_under_a_statement_is_lost_and_not_a_failed_statement(db: Database) -> None:
    async with db.session() as session:
        await create_pet(session, PetCreate(name="Lost"))

        def close(connection: Connection, *statement: object) -> None:
            await_(connection.connection.driver_connection.close())  # type: ignore[union-attr]

        event.listen(db.engine.sync_engine, "before_cursor_execute", close, once=True)
        with pytest.raises(DatabaseUnavailableError):
            await count_pets(session)
        await session.rollback()

        assert await count_pets(session) == 0


@on_mariadb
@pytest.mark.parametrize("in_savepoint", [True, False])
async def test_a_transaction_that_mariadb_ended_because_a_row_changed_is_not_committed_by_half(
    db: Database, in_savepoint: bool
) -> None:
    async with db.transaction() as session:
        pet_id = (await create_pet(session, PetCreate(name="Rex"))).id
    change = text("UPDATE pet SET color = 'older'")

    async with db.session() as session:
        await session.exec(text("SET SESSION innodb_snapshot_isolation = ON"))
        await session.commit()
        await create_pet(session, PetCreate(name="Lost"))
        await count_pets(session)  # This makes the snapshot.
        async with db.transaction() as other:
            await update_pet(other, pet_id, PetUpdate(color="newer"))
        with pytest.raises(DBAPIError) as caught:
            async with session.begin_nested() if in_savepoint else nullcontext():
                await session.exec(change)
        assert caught.value.driver_exception.args[0] == 1020 or in_savepoint
        await session.exec(text("UPDATE pet SET notes = 'half'"))
        with pytest.raises(PendingRollbackError):
            await session.commit()
        await session.rollback()
        await session.exec(text("SET SESSION innodb_snapshot_isolation = DEFAULT"))

    async with db.reading() as session:
        assert [(pet.name, pet.color, pet.notes) for pet in (await list_pets(session)).items] == [
            ("Rex", "newer", None)
        ]


@on_mariadb
async def test_a_transaction_that_mariadb_ended_because_its_lock_table_is_full_is_not_committed(db: Database) -> None:
    async with db.session() as session:
        await create_pet(session, PetCreate(name="Lost"))
        with pytest.raises(DBAPIError):
            await session.exec(text("BEGIN NOT ATOMIC SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1206; END"))
        with pytest.raises(PendingRollbackError):
            await session.commit()
