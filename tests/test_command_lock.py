"""Migrations that several tasks, threads, event loops or forked processes run at once."""

import asyncio
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import (
    Database,
    migrations,
)

from .engines.connections import run_program
from .migrating import (
    upgrade,
    writer_at_work,
)

UPGRADE_AT_ONCE = """
import asyncio, sys
from sqlmodel_alembic_async import Database, migrations

async def main():
    databases = [Database(url) for url in sys.argv[1:]]
    await asyncio.gather(*(migrations.upgrade(database=database) for database in databases))
    for database in databases:
        assert await migrations.current(database=database) == migrations.head()
        await database.dispose()

asyncio.run(main())
"""


def test_coroutines_that_upgrade_at_once_all_succeed(empty_url: URL, tmp_path: Path) -> None:
    same = empty_url.render_as_string(hide_password=False)
    other = f"sqlite:///{tmp_path / 'other.db'}"

    # In a process of its own: two migrations that wait for each other would never let go of this one.
    finished = subprocess.run(
        [sys.executable, "-c", UPGRADE_AT_ONCE, same, same, other, same],
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert finished.returncode == 0, finished.stderr


def test_threads_that_upgrade_at_once_all_succeed(tmp_path: Path) -> None:
    async def upgrade(name: int) -> str | None:
        async with Database(f"sqlite:///{tmp_path / str(name)}.db") as db:
            await migrations.upgrade(database=db)
            return await migrations.current(database=db)

    with ThreadPoolExecutor(4) as threads:
        revisions = list(threads.map(lambda name: asyncio.run(upgrade(name)), range(8), timeout=60))

    assert revisions == [migrations.head()] * 8


FORKED = """
import asyncio, os, signal, sys, threading
import sqlalchemy as sa
from sqlmodel_alembic_async import Database, migrations

began, forked = threading.Event(), threading.Event()

async def upgrade(name, wait=False):
    async with Database(f"sqlite:///{sys.argv[1]}/{name}.db") as db:
        if wait:
            hold = lambda *statement: began.set() or forked.wait()
            sa.event.listen(db.engine.sync_engine, "before_cursor_execute", hold)
        await migrations.upgrade(database=db)

thread = threading.Thread(target=asyncio.run, args=[upgrade("parent", wait=True)])
thread.start()
began.wait()
child = os.fork()
if not child:
    signal.alarm(20)
    asyncio.run(upgrade("child"))
    os._exit(0)
forked.set()
thread.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_of_a_process_that_migrates_can_migrate(tmp_path: Path) -> None:
    finished = subprocess.run([sys.executable, "-c", FORKED, str(tmp_path)], timeout=60)

    assert finished.returncode == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_migration_that_a_closed_event_loop_left_behind_blocks_no_other_one(tmp_path: Path) -> None:
    async def wait_for_writer() -> asyncio.Task[None]:
        task = asyncio.create_task(upgrade(Database(f"sqlite:///{path}")))
        await asyncio.sleep(0.5)
        return task

    path = tmp_path / "left.db"
    sqlite3.connect(path).close()
    loop = asyncio.new_event_loop()
    with writer_at_work(sa.make_url(f"sqlite:///{path}")):
        left = loop.run_until_complete(wait_for_writer())
        assert not left.done()
        loop.close()

    async def upgrade_another() -> str | None:
        async with Database("sqlite://") as db:
            await asyncio.wait_for(upgrade(db), 5)
            return await migrations.current(database=db)

    assert asyncio.run(upgrade_another()) == migrations.head()
    left._log_destroy_pending = False  # type: ignore[attr-defined]  # it is as it should be
    left.get_coro().close()  # type: ignore[union-attr]  # as when it is collected
    assert asyncio.run(upgrade_another()) == migrations.head()


FORK_DURING_UPGRADE = """
import asyncio, sys
from sqlmodel_alembic_async import Database, command_lock, migrations
from tests.stress.forks import ended, forked

async def upgrade():
    async with asyncio.timeout(10), Database(sys.argv[1]) as db:
        await migrations.upgrade(database=db)

command_lock._mutex.acquire()  # As another thread does that begins to migrate.
command_lock._owner = loop = asyncio.new_event_loop()
print("exit code", asyncio.run(ended(forked(lambda: asyncio.run(upgrade())))))
loop.close()
"""


def test_a_process_that_is_forked_while_a_thread_upgrades_upgrades(empty_url: URL) -> None:
    assert run_program(FORK_DURING_UPGRADE, empty_url).endswith("exit code 0\n")
