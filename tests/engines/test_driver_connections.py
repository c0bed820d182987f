"""The drivers' own connections to servers: what they read from, and their end."""

import asyncio

import pytest

from sqlmodel_alembic_async import Database
from sqlmodel_alembic_async.engines import driver_connections

from ..stress.measures import becomes_true

on_servers = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)


@on_servers
async def test_a_connection_has_a_socket_until_it_is_ended(db: Database) -> None:
    async with db.engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        socket = driver_connections.socket_fd(driver)

        driver_connections.terminate(driver)

        assert socket is not None
        assert await becomes_true(lambda: driver_connections.socket_fd(driver) is None)
        assert driver_connections.transport_of(driver) is None
        await connection.invalidate()


@on_servers
async def test_a_server_notices_at_once_that_a_connection_was_ended(db: Database, engine_name: str) -> None:
    me, is_there = {
        "postgresql": ("SELECT pg_backend_pid()", "SELECT count(*) FROM pg_stat_activity WHERE pid = {}"),
        "mariadb": ("SELECT connection_id()", "SELECT count(*) FROM information_schema.processlist WHERE id = {}"),
    }[engine_name]
    async with db.engine.connect() as connection, db.engine.connect() as other:
        number = (await connection.exec_driver_sql(me)).scalar_one()
        driver_connections.terminate((await connection.get_raw_connection()).driver_connection)

        async with asyncio.timeout(10):
            while (await other.exec_driver_sql(is_there.format(number))).scalar_one():
                await other.rollback()
                await asyncio.sleep(0.01)
        await connection.invalidate()


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
async def test_a_connection_to_a_file_has_no_socket(db: Database) -> None:
    async with db.engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection

        assert driver_connections.socket_fd(driver) is None
