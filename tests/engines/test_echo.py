"""SQL echo: every statement of every kind of session is logged from the next one on, without its values."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database, PetCreate, count_pets, create_pet, engines, migrations
from sqlmodel_alembic_async.engines.echo import get_echo, set_echo

from ..migrating import outcome, start

LOGGER = "sqlalchemy.engine.Engine"


def statements(log: pytest.LogCaptureFixture) -> list[str]:
    """Return the first words of what has been logged since the last call."""
    records = [record.getMessage() for record in log.records if record.name == LOGGER]
    log.clear()
    return [text.split()[0] for text in records if not text.startswith("[")]


async def count_in_each_kind_of_session(db: Database, log: pytest.LogCaptureFixture) -> dict[str, int]:
    kinds: dict[str, Any] = {
        "transaction": db.transaction(),
        "reading": db.reading(),
        "snapshot": db.reading(snapshot=True),
        "session": db.session(),
    }
    logged = {}
    for kind, opened in kinds.items():
        async with opened as session:
            await count_pets(session)
        logged[kind] = statements(log).count("SELECT")
    return logged


EACH = {"transaction": 1, "reading": 1, "snapshot": 1, "session": 1}
NONE = dict.fromkeys(EACH, 0)


async def test_echo_logs_the_statements_of_every_kind_of_session(
    migrated_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    async with Database(migrated_url, echo=True) as db:
        assert db.echo is True
        await count_in_each_kind_of_session(db, caplog)  # A first connection takes statements of its own.

        assert await count_in_each_kind_of_session(db, caplog) == EACH


@pytest.mark.parametrize("setter", ["database", "engine"])
async def test_echo_is_switched_on_and_off_while_connections_are_open(
    db: Database, caplog: pytest.LogCaptureFixture, setter: str
) -> None:
    def switch(on: bool) -> None:
        if setter == "database":
            db.echo = on
        else:
            db.engine.echo = on

    assert db.echo is False
    assert await count_in_each_kind_of_session(db, caplog) == NONE

    switch(True)
    assert db.echo is True
    assert await count_in_each_kind_of_session(db, caplog) == EACH

    switch(False)
    assert await count_in_each_kind_of_session(db, caplog) == NONE
    assert db.echo is False


async def test_a_session_in_a_transaction_logs_from_its_next_statement_on(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with db.session() as session, db.reading() as reading, db.reading(snapshot=True) as snapshot:
        for each in (session, reading, snapshot):
            await count_pets(each)
        db.echo = True
        for each in (session, reading, snapshot):
            statements(caplog)
            await count_pets(each)
            assert statements(caplog) == ["SELECT"]
        db.echo = False


async def test_values_are_hidden_unless_they_are_asked_for(db: Database, caplog: pytest.LogCaptureFixture) -> None:
    async def create(name: str) -> str:
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name=name))
        return caplog.text

    db.echo = True
    shown = await create("Rex")
    assert "INSERT INTO pet" in shown
    assert "Rex" not in shown

    db.echo = "values"
    assert db.echo == "values"
    assert "'Max'" in await create("Max")

    db.echo = True
    assert db.echo is True
    assert "Leo" not in await create("Leo")
    db.echo = False


@pytest.mark.parametrize("echo", [True, "values"])
async def test_a_migration_is_logged(empty_url: URL, caplog: pytest.LogCaptureFixture, echo: bool | str) -> None:
    async with Database(empty_url, echo=echo) as db:
        await migrations.upgrade(database=db)

    assert "CREATE TABLE pet" in caplog.text


def test_an_unknown_echo_is_refused() -> None:
    with pytest.raises(ValueError, match='echo must be True, False or "values"'):
        _ = Database("sqlite://", echo="yes").engine


async def test_an_engine_that_shows_values_already_says_so(caplog: pytest.LogCaptureFixture) -> None:
    engine = engines.create_engine("sqlite://", hide_parameters=False, echo=True)

    assert get_echo(engine.sync_engine) == "values"
    set_echo(engine.sync_engine, False)
    assert get_echo(engine.sync_engine) is False


PROGRAM = """
import asyncio
from sqlmodel_alembic_async import database, migrations, count_pets
async def main():
    await migrations.upgrade()
    print("migrated")
    async with database.transaction() as session:
        await count_pets(session, name_prefix="Grace")
    async with database.reading() as session:
        await count_pets(session, name_prefix="Grace")
    await database.dispose()
{logging}
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("echo", "counts", "values", "has_handler"),
    [("", 0, 0, False), ("0", 0, 0, False), ("1", 2, 0, False), ("1", 2, 0, True), ("values", 2, 2, False)],
)
def test_the_environment_switches_echo_on(
    empty_url: URL, tmp_path: Path, echo: str, counts: int, values: int, has_handler: bool
) -> None:
    configure = "import logging; logging.basicConfig(level='WARNING')" if has_handler else ""
    url = empty_url.render_as_string(hide_password=False)

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(logging=configure)],
        env={**os.environ, "DATABASE_URL": url, "DATABASE_ECHO": echo},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    migrated, _, counted = done.stdout.partition("migrated")
    if has_handler:
        migrated = counted = done.stderr
    assert counted.count("SELECT count(*)") == counts
    assert counted.count("'grace'") == values
    assert migrated.count("CREATE TABLE pet") == bool(counts)


def test_the_command_logs_a_statement_once(empty_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_ECHO", "1")

    code, out, err = outcome(start(empty_url, "upgrade", "head"))

    assert (code, (out + err).count("CREATE TABLE pet")) == (0, 1)
