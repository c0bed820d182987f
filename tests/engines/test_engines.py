"""Building engines."""

import logging
import re
import traceback

import pytest
from sqlalchemy.pool import NullPool

from sqlmodel_alembic_async import Database, UserCreate, create_user, engines


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("sqlite:///x.db", "sqlite+aiosqlite"),
        ("postgres://h/x", "postgresql+asyncpg"),
        ("postgresql://h/x", "postgresql+asyncpg"),
        ("mysql://h/x", "mysql+asyncmy"),
        ("mariadb://h/x", "mariadb+asyncmy"),
        ("postgresql+psycopg://h/x", "postgresql+psycopg"),
    ],
)
def test_a_platforms_url_gets_the_async_driver(given: str, driver: str) -> None:
    assert engines.async_url(given).drivername == driver


def test_a_platforms_name_of_an_option_becomes_the_drivers() -> None:
    url = engines.async_url("postgres://u:p@h/x?sslmode=require&application_name=pets")

    assert url.query == {"ssl": "require", "application_name": "pets"}
    assert url.password == "p"


@pytest.mark.parametrize("bad", ["", "secret", "postgres:/secret", "postgres://u:secret@h:port/x"])
def test_what_is_no_url_is_refused_without_quoting_it(bad: str) -> None:
    with pytest.raises(ValueError, match="not a database URL") as caught:
        engines.async_url(bad)

    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(("url", "extra"), [("postgres://h/x", "postgresql"), ("mariadb://h/x", "mysql")])
def test_a_missing_driver_names_the_extra_to_install(url: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)

    with pytest.raises(ModuleNotFoundError, match=rf"sqlmodel-alembic-async\[{extra}\]") as caught:
        engines.create_engine(url)

    assert caught.value.name == engines.async_url(url).drivername.partition("+")[2]


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("sqlite+pysqlite:///x.db", "sqlite+pysqlite is not an async driver: use sqlite+aiosqlite"),
        ("postgresql+psycopg2://u:secret@h/x", "postgresql+psycopg2 is not an async driver: use postgresql+asyncpg"),
        ("mariadb+mariadbconnector://h/x", "mariadb+mariadbconnector is not an async driver: use mariadb+asyncmy"),
        ("mssql://u:secret@h/x", "mssql is not an async driver: use sqlite, postgres, postgresql, mysql, mariadb"),
        ("postgresql+unknown://h/x", "unknown database or driver postgresql+unknown: use postgresql+asyncpg"),
        (
            "secret://u:secret@h/x",
            "unknown database or driver secret: use sqlite, postgres, postgresql, mysql, mariadb",
        ),
    ],
)
def test_a_driver_that_is_unknown_or_not_async_is_refused(url: str, advice: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(advice)}$") as caught:
        engines.create_engine(url)

    assert "u:secret" not in "".join(traceback.format_exception(caught.value))


async def test_options_are_the_callers(engine_name: str) -> None:
    url = {"sqlite": "sqlite:///x.db", "postgresql": "postgresql://h/x", "mariadb": "mysql://h/x"}[engine_name]

    engine = engines.create_engine(url, poolclass=NullPool, echo=False)

    assert isinstance(engine.sync_engine.pool, NullPool)


async def test_no_log_line_holds_a_value(db: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    quiet = Database(db.url, echo=True)
    async with quiet, quiet.transaction() as session:
        await create_user(session, UserCreate(name="Secret Name", email="secret@example.com"))

    assert "INSERT INTO" in caplog.text
    assert "secret" not in caplog.text.lower()


@pytest.mark.parametrize("engine_name", ["mariadb"], indirect=True)
async def test_a_reader_of_a_server_sends_no_rollback(db: Database) -> None:
    async def rollbacks() -> int:
        async with db.reading() as session:
            connection = await session.connection()
            return int((await connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Com_rollback'")).one()[1])

    first = await rollbacks()

    assert [await rollbacks() for _ in range(3)] == [first] * 3
