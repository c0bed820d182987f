"""Savepoints of the package's own: how they begin on a host's engine, and how they end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession as HostSession

from sqlmodel_alembic_async import count_pets, count_users, import_pets
from sqlmodel_alembic_async.engines import prepare
from sqlmodel_alembic_async.services.csv_files import file_format

from ..csv_files.imports import cancel_half_way, counts, rows


async def test_a_host_applications_session_is_told_that_its_task_was_cancelled(
    migrated_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_format, "BATCH_SIZE", 10)
    engine = prepare(create_async_engine(migrated_url))

    @asynccontextmanager
    async def transaction() -> AsyncIterator[HostSession]:
        async with HostSession(engine) as session, session.begin():
            yield session

    await cancel_half_way(transaction())

    async with HostSession(engine) as session:
        assert await count_pets(session) == 0
    await engine.dispose()


@pytest.mark.parametrize("ready", [True, False])
async def test_an_import_is_the_callers_to_roll_back_on_any_engine_of_a_host(migrated_url: URL, ready: bool) -> None:
    engine = create_async_engine(migrated_url)
    if ready:
        prepare(engine)

    async with HostSession(engine) as session:
        for _ in range(2):
            assert counts(await import_pets(session, rows("name,owner_name", "Rex,Ada"))) == (1, 0, 0, 0)
        await session.rollback()

        assert (await count_pets(session), await count_users(session)) == (0, 0)
    await engine.dispose()
