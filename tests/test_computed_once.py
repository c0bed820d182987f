"""A value that is computed once."""

import asyncio
import copy
import threading

from sqlalchemy.engine import URL

from sqlmodel_alembic_async import (
    Database,
    count_pets,
)


def test_an_engine_is_built_once_for_all_threads(migrated_url: URL) -> None:
    db = Database(migrated_url)
    start = threading.Barrier(8)
    found: list[object] = []

    def build() -> None:
        start.wait()
        found.append(db.engine)

    threads = [threading.Thread(target=build) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_a_database_that_is_not_connected_can_be_copied(migrated_url: URL) -> None:
    twin = copy.deepcopy(Database(migrated_url))

    async def count() -> int:
        async with twin, twin.reading() as session:
            return await count_pets(session)

    assert asyncio.run(count()) >= 0
    assert "async engine" in str(Database.engine.__doc__)
