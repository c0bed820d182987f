"""Changes of the tables beside other processes, other transactions, and in any isolation level."""

import asyncio
import sqlite3
import subprocess
import sys

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlmodel import SQLModel

from sqlmodel_alembic_async import (
    Database,
    DatabaseError,
    StorageError,
    TransactionConflictError,
    count_pets,
    migrations,
    schema,
    schema_locks,
)
from sqlmodel_alembic_async.models import TABLES

from .migrating import (
    VERSION_TABLE,
    Work,
    ask,
    ask_once,
    create_tables,
    downgrade,
    on_mariadb,
    on_postgresql,
    on_servers,
    on_sqlite,
    table_names,
    upgrade,
    writer_at_work,
)

MIGRATE = """
import asyncio, sys
from sqlmodel_alembic_async import Database, migrations

async def main(url, level, work):
    async with Database(url, isolation_level=level) as db:
        await (migrations.upgrade(database=db) if work == "upgrade" else db.create_tables())

asyncio.run(main(*sys.argv[1:]))
"""


LEVELS = [
    ("sqlite", "AUTOCOMMIT"),
    ("postgresql", "REPEATABLE READ"),
    ("postgresql", "SERIALIZABLE"),
    ("postgresql", "AUTOCOMMIT"),
    ("mariadb", "SERIALIZABLE"),
    ("mariadb", "AUTOCOMMIT"),
]


@pytest.mark.parametrize("work", ["upgrade", "create_tables"])
@pytest.mark.parametrize(("engine_name", "level"), LEVELS, indirect=["engine_name"])
def test_processes_migrate_at_once_in_any_isolation_level(empty_url: URL, level: str, work: str) -> None:
    command = [sys.executable, "-c", MIGRATE, empty_url.render_as_string(hide_password=False), level, work]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]

    errors = [process.communicate(timeout=60)[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0, 0], errors
    expected = {*TABLES, VERSION_TABLE} if work == "upgrade" else {*TABLES}
    assert asyncio.run(ask_once(empty_url, table_names)) == expected


@on_sqlite
async def test_a_failed_migration_changes_nothing_in_autocommit_either(empty_url: URL) -> None:
    async with Database(empty_url, isolation_level="AUTOCOMMIT") as db:

        def fail(connection: object, cursor: object, statement: str, *rest: object) -> None:
            if statement.strip().startswith("CREATE TABLE pet"):
                raise KeyError

        sa.event.listen(db.engine.sync_engine, "before_cursor_execute", fail)
        with pytest.raises(KeyError):
            await upgrade(db)

        assert await ask(db, table_names) == set()


@on_servers
async def test_a_migration_does_not_wait_for_an_idle_transaction_without_end(
    empty_url: URL, engine_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_locks, "TABLE_LOCK_TIMEOUT", 1)
    async with Database(empty_url) as db, Database(empty_url) as host:
        await upgrade(db)
        async with host.session() as session:
            await count_pets(session)

            task = asyncio.create_task(downgrade(db))
            await asyncio.wait([task], timeout=15)
            ended = task.done()
        await asyncio.wait([task])

        assert ended
        assert isinstance(task.exception(), TransactionConflictError)
        assert "which may be idle" in str(task.exception())
        assert await ask(db, table_names) == {*TABLES, VERSION_TABLE}
        if engine_name == "mariadb":
            assert await ask(db, lambda connection: connection.scalar(sa.text("SELECT @@lock_wait_timeout"))) > 10
        await downgrade(db)


@on_sqlite
@pytest.mark.parametrize("work", [upgrade, create_tables])
async def test_a_migration_waits_longer_for_a_writer_than_a_transaction_does(empty_url: URL, work: Work) -> None:
    async with Database(empty_url, connect_args={"timeout": 0.1}) as db:
        await ask(db, table_names)
        with writer_at_work(empty_url):
            task = asyncio.create_task(work(db))
            await asyncio.wait([task], timeout=1)
        await asyncio.wait_for(task, 20)

        assert await ask(db, table_names) >= {*TABLES}


@on_sqlite
async def test_a_migration_gives_up_where_a_writer_does_not_end(
    empty_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_locks, "SQLITE_LOCK_TIMEOUT", 0)
    async with Database(empty_url, connect_args={"timeout": 0.1}) as db:
        await ask(db, table_names)
        with writer_at_work(empty_url), pytest.raises(TransactionConflictError):
            await upgrade(db)


@on_sqlite
async def test_a_migration_of_a_file_that_can_only_be_read_does_not_wait(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await ask(db, table_names)
    async with Database(f"sqlite:///file:{empty_url.database}?mode=ro&uri=true") as db:
        with pytest.raises(StorageError):
            await asyncio.wait_for(upgrade(db), 5)


@on_sqlite
async def test_an_error_that_is_no_lock_is_told_at_once(empty_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR, "SQLITE_IOERR"
        raise error

    async with Database(empty_url) as db:
        await ask(db, table_names)
        monkeypatch.setattr(db.engine.dialect, "do_execute", fail)
        monkeypatch.setattr(db.engine.dialect, "do_execute_no_params", fail)
        async with asyncio.timeout(10):
            with pytest.raises(StorageError):
                await db.create_tables()


@on_postgresql
async def test_other_versions_of_the_package_take_the_same_lock_on_postgresql(empty_url: URL) -> None:
    async with Database(empty_url) as db, db.engine.connect() as other:
        await other.execute(sa.text("SELECT pg_advisory_xact_lock(5904359)"))
        task = asyncio.create_task(db.create_tables())
        await asyncio.wait([task], timeout=0.5)
        assert not task.done()
        await other.rollback()
        await task


@on_mariadb
async def test_other_versions_of_the_package_take_the_same_lock_on_mariadb(empty_url: URL) -> None:
    name = "concat(left(sha1(database()), 16), ':sqlmodel_alembic_async_version')"
    async with Database(empty_url) as db, db.engine.connect() as other:
        await other.exec_driver_sql(f"SELECT get_lock({name}, 0)")
        task = asyncio.create_task(db.create_tables())
        await asyncio.wait([task], timeout=0.5)
        assert not task.done()
        await other.exec_driver_sql(f"SELECT release_lock({name})")
        await task


@on_mariadb
@pytest.mark.parametrize("work", [upgrade, downgrade, create_tables, lambda db: migrations.current(database=db)])
async def test_a_url_without_a_database_is_told(empty_url: URL, work: Work) -> None:
    async with Database(empty_url._replace(database=None)) as db:
        with pytest.raises(DatabaseError, match="the database URL names no database"):
            await work(db)


@on_mariadb
async def test_tables_that_could_not_be_dropped_are_not_left_locked(migrated_url: URL) -> None:
    def drop(connection: sa.Connection) -> None:
        with schema_locks.alone(connection):
            schema.drop_if_empty(connection, [SQLModel.metadata.tables[name] for name in TABLES])

    async with Database(migrated_url) as db, db.engine.connect() as connection:
        await ask(db, lambda other: other.execute(sa.text("CREATE TABLE visit (pet_id INT REFERENCES pet (id))")))
        with pytest.raises(DatabaseError, match="foreign key"):
            await connection.run_sync(drop)

        async with asyncio.timeout(5):
            assert await db.run_transaction(count_pets) == 0
        await ask(db, lambda other: other.execute(sa.text("DROP TABLE visit")))
