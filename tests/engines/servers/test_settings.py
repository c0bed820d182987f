"""What connections to servers are set up with."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import asyncmy
import asyncpg
import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from sqlmodel_alembic_async import Database, PetCreate, StorageError, count_pets, create_pet, engines
from sqlmodel_alembic_async.engines.servers import connecting


@pytest.mark.parametrize("engine_name", ["mariadb"], indirect=True)
@pytest.mark.parametrize("completion", ["'CHAIN'", "'RELEASE'"])
async def test_a_servers_completion_type_does_not_go_on_with_a_transaction_that_only_reads(
    migrated_url: URL, db: Database, completion: str
) -> None:
    def set_up(connection: Any, record: object) -> None:
        # Stands for the server's own setting, which all other tests share.
        connection.cursor().execute(f"SET SESSION completion_type = {completion}")

    async with Database(migrated_url, pool_size=1, max_overflow=0) as other:
        event.listen(other.engine.sync_engine, "connect", set_up, insert=True)
        for _ in range(2):
            async with other.reading(snapshot=True) as session:
                before = await count_pets(session)
            async with other.transaction() as session:
                await create_pet(session, PetCreate(name="Rex"))
            async with db.reading() as session:
                assert await count_pets(session) == before + 1


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
@pytest.mark.parametrize("is_known", [True, False])
async def test_only_known_drivers_open_their_connections_in_tasks_of_their_own(db: Database, is_known: bool) -> None:
    engine = create_async_engine(db.url)
    if not is_known:
        engine.dialect.driver = "another"

    engines.prepare(engine)

    assert event.contains(engine.sync_engine, "do_connect", connecting._connect_in_own_task) is is_known


@pytest.fixture
async def self_connecting_db(migrated_url: URL) -> AsyncIterator[Database]:
    dialect = create_async_engine(migrated_url).dialect
    args, options = dialect.create_connect_args(migrated_url)
    connect = {"asyncpg": asyncpg, "asyncmy": asyncmy}[dialect.driver].connect
    async with Database(migrated_url, async_creator=lambda: connect(*args, **options)) as db:
        yield db


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
async def test_a_reader_reads_where_the_callers_engine_opens_its_connections_itself(
    self_connecting_db: Database,
) -> None:
    async with self_connecting_db.reading() as session:
        assert await count_pets(session) == 0


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
async def test_a_reader_can_not_write_where_the_callers_engine_opens_its_connections_itself(
    self_connecting_db: Database,
) -> None:
    with pytest.raises(StorageError):
        async with self_connecting_db.reading() as session:
            await session.exec(text("DELETE FROM pet"))


@pytest.mark.parametrize("engine_name", ["mariadb"], indirect=True)
async def test_a_servers_warning_that_quotes_a_value_is_not_logged(
    migrated_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "asyncmy")

    async with Database(migrated_url) as db, db.reading() as session:
        await session.exec(text("SELECT CAST('secret' AS SIGNED)"))

    assert "secret" not in caplog.text
