"""Processes that fork: neither the parent nor the child loses or shares a connection."""

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.engine import URL
from sqlalchemy.util import greenlet_spawn

from sqlmodel_alembic_async import Database

from ..stress import forks
from .connections import driver, is_open, pool

ROOT = Path(__file__).parents[2]
on_sqlite = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
on_servers = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)


@on_sqlite
async def test_what_is_closed_already_is_not_closed_before_a_fork(db: Database) -> None:
    await driver(db)
    share = pool(db)._share()
    [record] = share.take_idle()
    await greenlet_spawn(record.invalidate)
    share.idle.put(record)

    pool(db).close_idle_before_fork()

    assert (pool(db).checkedin(), pool(db).checkedout()) == (0, 0)
    assert is_open(await driver(db))


def test_a_forked_process_has_connections_of_its_own(migrated_url: URL) -> None:
    report = forks.fork(migrated_url.render_as_string(hide_password=False))

    assert report.broken == []
    assert report.counts["forks"] > 0


def run(program: str, url: URL) -> str:
    command = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", program]
    ended = subprocess.run(
        [*command, url.render_as_string(hide_password=False)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.stdout + ended.stderr


@on_servers
def test_a_process_that_is_forked_while_a_thread_makes_the_first_connection_connects(migrated_url: URL) -> None:
    program = """
import asyncio, sys
from sqlmodel_alembic_async import Database
from tests.stress.forks import ended, forked, work

db = Database(sys.argv[1])

async def main():
    db.engine.pool.dispatch.connect._exec_once_mutex._lock.acquire()
    print("exit code", await ended(forked(lambda: asyncio.run(work(db)))))

asyncio.run(main())
"""

    assert run(program, migrated_url) == "exit code 0\n"


@on_servers
def test_a_transaction_outlives_a_process_that_is_forked_in_it(migrated_url: URL) -> None:
    program = """
import asyncio, sys
from sqlmodel_alembic_async import Database, PetCreate, count_pets, create_pet
from sqlmodel_alembic_async.engines.driver_connections import socket_of
from tests.stress.forks import ended, forked, work

db = Database(sys.argv[1])

async def main():
    async with db.reading() as session:
        before = await count_pets(session)
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))
        driver = (await (await session.connection()).get_raw_connection()).driver_connection
        socket = socket_of(driver)
        code = await ended(forked(lambda: in_child(socket)))
        await create_pet(session, PetCreate(name="Max"))
    async with db.reading() as session:
        print("rows", await count_pets(session) - before, "exit code", code)
    await db.dispose()

def in_child(socket):
    import os, stat
    try:
        has_parents_socket = stat.S_ISSOCK(os.fstat(socket).st_mode)
    except OSError:
        has_parents_socket = False
    assert not has_parents_socket
    asyncio.run(work(db))

asyncio.run(main())
"""

    assert run(program, migrated_url) == "rows 7 exit code 0\n"


@on_sqlite
def test_a_process_that_is_forked_while_its_file_is_in_use_may_not_use_it(migrated_url: URL) -> None:
    program = """
import asyncio, sys
from sqlmodel_alembic_async import Database, PetCreate, count_pets, create_pet
from tests.stress.forks import ended, forked, work

db = Database(sys.argv[1])

async def main():
    async with db.reading() as session:
        before = await count_pets(session)
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))
        code = await ended(forked(in_child))
        await create_pet(session, PetCreate(name="Max"))
    async with db.reading() as session:
        print("rows", await count_pets(session) - before, "exit code", code)
    await db.dispose()

def in_child():
    for _ in range(2):
        try:
            asyncio.run(count())
        except RuntimeError as error:
            print(error)
        asyncio.run(db.dispose())  # What follows has new pools, and is as wrong.

async def count():
    async with db.reading() as session:
        await count_pets(session)

asyncio.run(main())
"""

    lines = run(program, migrated_url).splitlines()

    assert lines[-1] == "rows 2 exit code 0"
    assert len(lines) == 3
    assert all("fork while no session is open" in line for line in lines[:2])
