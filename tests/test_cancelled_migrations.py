"""Migrations that are cancelled, and those that wait for each other: each runs to its end, or does nothing."""

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database, TransactionConflictError, migrations, schema_locks
from sqlmodel_alembic_async.models import TABLES

from .migrating import (
    CHANGES,
    VERSION_TABLE,
    Work,
    add_revision,
    ask,
    ask_once,
    copy_migrations,
    create_tables,
    downgrade,
    on_mariadb,
    outcome,
    start,
    table_names,
    upgrade,
    versions,
)
from .stress.measures import becomes_true, checked_out

_PATIENCE = 20  # Seconds; only a test that fails waits so long.

Cancel = Callable[["asyncio.Task[Any]"], None]


async def begin_at(db: Database, work: Work) -> None:
    """Bring the tables to where the work begins."""
    await upgrade(db)
    if work is not downgrade:
        await downgrade(db)


async def expect_end_of(db: Database, work: Work) -> None:
    """Expect what the work leaves when nothing disturbs it."""
    assert await ask(db, table_names) == {VERSION_TABLE, *(() if work is downgrade else TABLES)}
    assert await ask(db, versions) == ([migrations.head()] if work is upgrade else [])
    assert await becomes_true(lambda: checked_out(db) == 0)


def once(task: "asyncio.Task[Any]") -> None:
    task.cancel()


def again_and_again(task: "asyncio.Task[Any]") -> None:
    """Cancel as anyio does: at every await, until the task has ended."""
    if not task.done():
        task.cancel()
        asyncio.get_running_loop().call_soon(again_and_again, task)


class AtChange:
    """Does something as the change with this number is sent; `number` is 1 for the first one."""

    def __init__(self, db: Database, number: int, action: Callable[[], object]) -> None:
        self._left = number
        self._action = action
        sa.event.listen(db.engine.sync_engine, "before_cursor_execute", self._count)

    @property
    def happened(self) -> bool:
        return self._left <= 0

    def _count(self, connection: object, cursor: object, statement: str, *rest: object) -> None:
        if statement.split()[0] in CHANGES:
            self._left -= 1
            if self._left == 0:
                self._action()


@pytest.mark.parametrize("work", [upgrade, downgrade])
async def test_a_migration_cancelled_at_any_change_runs_to_its_end(empty_url: URL, work: Work) -> None:
    for number in count(1):
        async with Database(empty_url) as db:
            await begin_at(db, work)
            task = asyncio.create_task(work(db))
            change = AtChange(db, number, partial(again_and_again, task))
            async with asyncio.timeout(_PATIENCE):
                await asyncio.wait([task])

            assert task.cancelled() == change.happened
            await expect_end_of(db, work)
        if not change.happened:
            break

    assert number > 3


async def test_a_timeout_of_a_migration_is_a_timeout(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as deadline:
                AtChange(db, 1, partial(deadline.reschedule, 0))
                await upgrade(db)

        await expect_end_of(db, upgrade)


async def test_a_migration_in_a_cancelled_scope_of_anyio_runs_to_its_end(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        with anyio.CancelScope() as scope:
            AtChange(db, 1, scope.cancel)
            await upgrade(db)

        assert scope.cancelled_caught
        await expect_end_of(db, upgrade)


@pytest.mark.parametrize("factory", [asyncio.Task, *filter(None, [getattr(asyncio, "eager_task_factory", None)])])
async def test_a_cancelled_migration_runs_to_its_end_whatever_makes_the_tasks(empty_url: URL, factory: Any) -> None:
    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        return factory(coro, loop=loop, **options) if factory is asyncio.Task else factory(loop, coro, **options)

    asyncio.get_running_loop().set_task_factory(make)
    async with Database(empty_url) as db:
        task = asyncio.create_task(upgrade(db))
        AtChange(db, 1, partial(again_and_again, task))
        await asyncio.wait([task], timeout=_PATIENCE)

        assert task.cancelled()
        await expect_end_of(db, upgrade)


async def test_an_error_of_a_cancelled_migration_is_the_cause_of_its_cancellation(empty_url: URL) -> None:
    class BrokenError(Exception):
        pass

    def break_off() -> None:
        task.cancel()
        raise BrokenError

    async with Database(empty_url) as db:
        task = asyncio.create_task(upgrade(db))
        AtChange(db, 1, break_off)
        with pytest.raises(asyncio.CancelledError) as caught:
            await task

        assert isinstance(caught.value.__cause__, BrokenError)
        await upgrade(db)
        await expect_end_of(db, upgrade)


@pytest.mark.parametrize("work", [upgrade, downgrade, create_tables])
async def test_a_migration_whose_own_task_is_cancelled_can_be_repeated(empty_url: URL, work: Work) -> None:
    """As at the end of asyncio.run(), which cancels every task of its loop."""
    for number in count(1):
        async with Database(empty_url) as db:
            await begin_at(db, work)
            mine = asyncio.all_tasks()
            task = asyncio.create_task(work(db))
            change = AtChange(db, number, partial(cancel_all_but, mine))
            async with asyncio.timeout(_PATIENCE):
                await asyncio.wait([task])

            assert task.cancelled() == change.happened
            await work(db)
            await expect_end_of(db, work)
        if not change.happened:
            break

    assert number > 3


def cancel_all_but(mine: set["asyncio.Task[Any]"]) -> None:
    for task in asyncio.all_tasks() - mine:
        task.cancel()


LOCK = {
    "postgresql": "SELECT pg_advisory_lock(x'5A17E7'::int)",
    "mysql": f"SELECT get_lock(concat(left(sha1(database()), 16), ':{VERSION_TABLE}'), 0)",
}
WAITING = {
    "postgresql": "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_locks.database = pg_database.oid"
    " WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted",
    "mysql": "SELECT count(*) FROM information_schema.processlist WHERE db = database() AND state = 'User lock'",
}


@asynccontextmanager
async def lock_held(url: URL) -> AsyncIterator[None]:
    """Hold the lock as another process does that migrates."""
    if url.get_backend_name() == "sqlite":
        with contextlib.closing(sqlite3.connect(str(url.database), isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            holder.execute("CREATE TABLE clinic (id INTEGER PRIMARY KEY)")
            yield
            holder.execute("DROP TABLE clinic")
            holder.execute("COMMIT")
    else:
        async with Database(url) as other, other.engine.connect() as connection:
            await connection.exec_driver_sql(LOCK[connection.dialect.name])
            yield
            await connection.invalidate()


class Statements:
    """Watches the statements of what is to wait for the lock."""

    def __init__(self, db: Database) -> None:
        self._sent = 0
        self._answered = 0
        sa.event.listen(db.engine.sync_engine, "before_cursor_execute", self._note_sent)
        sa.event.listen(db.engine.sync_engine, "after_cursor_execute", self._note_answered)

    def _note_sent(self, *statement: object) -> None:
        self._sent += 1

    def _note_answered(self, *statement: object) -> None:
        self._answered += 1

    async def wait(self) -> bool:
        """Tell whether one of them is sent and not answered for a while."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        while asyncio.get_running_loop().time() < deadline:
            sent, answered = self._sent, self._answered
            await asyncio.sleep(0.2)
            if sent > answered == self._answered:
                return True
        return False


async def nobody_waits(db: Database) -> bool:
    """Tell whether the server has no statement that waits for the lock."""
    if db.engine.dialect.name == "sqlite":
        return True

    def waiting(connection: sa.Connection) -> bool:
        return bool(connection.scalar(sa.text(WAITING[connection.dialect.name])))

    async def nobody() -> bool:
        return not await ask(db, waiting)

    return await becomes_true(nobody, _PATIENCE)


@pytest.mark.parametrize("work", [upgrade, downgrade, create_tables])
async def test_one_process_at_a_time_changes_the_tables(empty_url: URL, work: Work) -> None:
    async with Database(empty_url) as db:
        await begin_at(db, work)
        before = await ask(db, table_names)
        statements = Statements(db)
        async with lock_held(empty_url):
            task = asyncio.create_task(work(db))

            assert await statements.wait()
            assert await ask_once(empty_url, table_names) == before
        await asyncio.wait_for(task, _PATIENCE)

        await expect_end_of(db, work)


@pytest.mark.parametrize("cancel", [once, again_and_again])
@pytest.mark.parametrize("work", [upgrade, downgrade])
async def test_a_cancelled_migration_that_waits_for_another_process_gives_up(
    empty_url: URL, work: Work, cancel: Cancel
) -> None:
    async with Database(empty_url) as db:
        await begin_at(db, work)
        before = await ask(db, table_names)
        statements = Statements(db)
        async with lock_held(empty_url):
            task = asyncio.create_task(work(db))
            assert await statements.wait()

            cancel(task)
            with pytest.raises(asyncio.CancelledError) as caught:
                await asyncio.wait_for(task, _PATIENCE)

            assert caught.value.__cause__ is None
            assert await nobody_waits(db)
            assert await becomes_true(lambda: checked_out(db) == 0)
        assert await ask(db, table_names) == before
        await asyncio.wait_for(work(db), _PATIENCE)
        await expect_end_of(db, work)


async def test_a_cancelled_migration_that_waits_for_another_of_its_process_gives_up(empty_url: URL) -> None:
    async with Database(empty_url) as db, Database("sqlite://") as other:
        await downgrade(db)
        statements = Statements(db)
        async with lock_held(empty_url):
            first = asyncio.create_task(upgrade(db))
            assert await statements.wait()
            second = asyncio.create_task(upgrade(other))
            done, _ = await asyncio.wait([second], timeout=0.1)
            assert not done

            second.cancel()
            await asyncio.wait([second], timeout=_PATIENCE)

            assert second.cancelled()
        await asyncio.wait_for(first, _PATIENCE)
        assert await migrations.current(database=other) is None
        await upgrade(other)
        await expect_end_of(db, upgrade)


@on_mariadb
@pytest.mark.parametrize("work", [upgrade, create_tables])
async def test_a_lock_that_is_held_too_long_is_a_conflict(
    empty_url: URL, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_locks, "LOCK_TIMEOUT", 0)
    async with Database(empty_url) as db:
        async with lock_held(empty_url):
            with pytest.raises(TransactionConflictError, match="another process"):
                await work(db)
        assert await ask(db, table_names) == set()

        await work(db)


@pytest.fixture
def sigint() -> Iterator[None]:
    """Let programs be interrupted: children inherit that a shell ignores SIGINT for what runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint")
def test_a_plain_command_that_is_interrupted_runs_to_its_end(empty_url: URL, tmp_path: Path) -> None:
    checkout = copy_migrations(tmp_path / "checkout")
    add_revision(
        checkout,
        """
        import os, signal
        op.create_table("clinic", sa.Column("id", sa.Integer, primary_key=True))
        os.kill(os.getpid(), signal.SIGINT)
        op.create_table("visit", sa.Column("id", sa.Integer, primary_key=True))
        """,
    )

    code, _, err = outcome(start(empty_url, "upgrade", "head", ini=checkout))

    assert code != 0
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert asyncio.run(ask_once(empty_url, table_names)) == {*TABLES, VERSION_TABLE, "clinic", "visit"}
    assert asyncio.run(ask_once(empty_url, versions)) == ["second"]


INTERRUPTED = """
import asyncio, os, signal, sys
import sqlalchemy as sa
from sqlmodel_alembic_async import Database, migrations

async def main(url):
    async with Database(url) as db:
        @sa.event.listens_for(db.engine.sync_engine, "after_cursor_execute")
        def interrupt(connection, cursor, statement, *rest):
            if statement.strip().startswith("CREATE TABLE pet"):
                os.kill(os.getpid(), signal.SIGINT)
        await migrations.upgrade(database=db)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.usefixtures("sigint")
def test_a_program_that_is_interrupted_migrates_to_the_end(empty_url: URL) -> None:
    url = empty_url.render_as_string(hide_password=False)

    finished = subprocess.run([sys.executable, "-c", INTERRUPTED, url], capture_output=True, text=True, timeout=60)

    assert finished.returncode == -signal.SIGINT
    assert finished.stderr.rstrip().endswith("KeyboardInterrupt")
    assert asyncio.run(ask_once(empty_url, versions)) == [migrations.head()]
