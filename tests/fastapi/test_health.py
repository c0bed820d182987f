import httpx
import pytest
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database, migrations
from sqlmodel_alembic_async.fastapi.health import _earlier_revisions

from .conftest import application, client_of, problem_of


async def test_a_process_that_answers_is_live(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health/live")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_a_process_is_ready_when_the_tables_are_migrated(empty_url: URL) -> None:
    async with Database(empty_url) as db, client_of(application(db)) as client:
        before = await client.get("/health/ready")
        await migrations.upgrade(database=db)
        after = await client.get("/health/ready")

    assert problem_of(before) == (503, "migrations_pending", None)
    assert (after.status_code, after.json()) == (200, {"status": "ok"})


async def test_a_process_stays_ready_while_the_next_version_is_deployed(
    empty_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Database(empty_url) as db, client_of(application(db)) as client:
        await migrations.upgrade(database=db)
        async with db.engine.begin() as connection:
            await connection.exec_driver_sql(f"UPDATE {migrations.VERSION_TABLE} SET version_num = 'a_later_one'")
        later = await client.get("/health/ready")
        _earlier_revisions.cache_clear()
        monkeypatch.setattr(migrations, "known_revisions", lambda: {migrations.head(), "a_later_one"})
        earlier = await client.get("/health/ready")
        _earlier_revisions.cache_clear()

    assert later.status_code == 200
    assert problem_of(earlier) == (503, "migrations_pending", None)


async def test_a_process_without_its_database_is_not_ready() -> None:
    async with (
        Database("postgresql://nobody@127.0.0.1:1/none") as db,
        client_of(application(db)) as client,
    ):
        ready = await client.get("/health/ready")
        live = await client.get("/health/live")

    assert problem_of(ready) == (503, "database_unavailable", None)
    assert ready.headers["retry-after"] == "1"
    assert live.status_code == 200
