"""What the tests of pools ask of a database and its connections."""

from typing import Any

from sqlmodel_alembic_async import Database


def pool(db: Database) -> Any:
    return db.engine.sync_engine.pool


async def driver(db: Database) -> Any:
    async with db.engine.connect() as connection:
        await connection.exec_driver_sql("SELECT 1")
        return (await connection.get_raw_connection()).driver_connection


def is_open(connection: Any) -> bool:
    if hasattr(connection, "_thread"):
        return bool(connection._thread.is_alive())
    return not connection.is_closed() if hasattr(connection, "is_closed") else bool(connection.connected)
