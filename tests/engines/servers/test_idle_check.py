"""Whether an idle connection is asked, and what comes of the answer."""

from typing import Any

import pytest
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database
from sqlmodel_alembic_async.engines.servers import idle_check

pytestmark = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)


class Pings:
    """Counts the questions to the server; `answer` may stand in for its own."""

    def __init__(self, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.answer: bool | None = None
        ping = db.engine.dialect.do_ping

        def do_ping(connection: Any) -> bool:
            self.count += 1
            return ping(connection) if self.answer is None else self.answer

        monkeypatch.setattr(db.engine.dialect, "do_ping", do_ping)


@pytest.fixture
def pings(db: Database, monkeypatch: pytest.MonkeyPatch) -> Pings:
    return Pings(db, monkeypatch)


async def driver_connection(db: Database) -> object:
    async with db.engine.connect() as connection:
        await connection.exec_driver_sql("SELECT 1")
        return (await connection.get_raw_connection()).driver_connection


async def test_a_connection_that_was_used_just_now_is_not_asked(db: Database, pings: Pings) -> None:
    first = await driver_connection(db)

    for _ in range(3):
        assert await driver_connection(db) is first

    assert pings.count == 0


async def test_a_connection_that_was_idle_for_long_is_asked(
    db: Database, pings: Pings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_check, "_PING_AFTER", 0)
    first = await driver_connection(db)

    for _ in range(3):
        assert await driver_connection(db) is first

    assert pings.count == 3


async def test_a_connection_that_can_not_be_looked_at_is_asked(
    db: Database, pings: Pings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_check, "transport_of", lambda connection: None)
    first = await driver_connection(db)

    assert await driver_connection(db) is first
    assert pings.count == 1


async def test_a_connection_that_is_not_alive_is_replaced(
    db: Database, pings: Pings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_check, "_PING_AFTER", 0)
    first = await driver_connection(db)

    pings.answer = False
    second = await driver_connection(db)
    pings.answer = None

    assert second is not first
    assert await driver_connection(db) is second


async def test_a_pool_that_pings_by_itself_goes_on_doing_so(migrated_url: URL) -> None:
    async with Database(migrated_url, pool_pre_ping=True) as db:
        first = await driver_connection(db)

        assert await driver_connection(db) is first
