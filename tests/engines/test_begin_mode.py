"""How a transaction begins, as each engine is told."""

import pytest
from sqlalchemy.exc import DBAPIError

from sqlmodel_alembic_async import Database, engines
from sqlmodel_alembic_async.engines.begin_mode import BEGIN, begin_mode

MODES = {
    "sqlite": {"writer": "IMMEDIATE", "reader": "AUTOCOMMIT", "snapshot": "READ ONLY"},
    "postgresql": {"writer": "DEFERRED", "reader": "AUTOCOMMIT", "snapshot": "DEFERRED"},  # It has an option for it.
    "mariadb": {"writer": "DEFERRED", "reader": "AUTOCOMMIT", "snapshot": "READ ONLY"},
}


async def test_a_transaction_begins_with_its_first_write_unless_it_is_told_otherwise(db: Database) -> None:
    async with db.engine.connect() as connection:
        assert await connection.run_sync(begin_mode) == "DEFERRED"


@pytest.mark.parametrize("purpose", ["writer", "reader", "snapshot"])
async def test_each_purpose_has_the_mode_that_its_engine_needs(db: Database, engine_name: str, purpose: str) -> None:
    async with getattr(engines, purpose)(db.engine).connect() as connection:
        assert await connection.run_sync(begin_mode) == MODES[engine_name][purpose]


@pytest.mark.parametrize("engine_name", ["sqlite", "mariadb"], indirect=True)
async def test_a_transaction_that_is_to_read_only_can_not_write(db: Database) -> None:
    async with db.engine.execution_options(**{BEGIN: "READ ONLY"}).connect() as connection:
        with pytest.raises(DBAPIError):
            await connection.exec_driver_sql("DELETE FROM pet")

    async with db.engine.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM pet")
