"""What connections to servers are set up with."""

from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from sqlmodel_alembic_async import Database, PetCreate, count_pets, create_pet, engines
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
