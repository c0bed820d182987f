"""The drivers' own connections to servers: what they read from, and their end."""

import pytest

from sqlmodel_alembic_async import Database
from sqlmodel_alembic_async.engines import driver_connections

pytestmark = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)


async def test_the_drivers_have_the_private_name_that_is_relied_upon(db: Database) -> None:
    async with db.engine.connect() as connection:
        transport = driver_connections.transport_of((await connection.get_raw_connection()).driver_connection)

        assert transport is not None
        assert transport.get_extra_info("socket").fileno() > 0
        assert transport.is_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        transport.resume_reading()
