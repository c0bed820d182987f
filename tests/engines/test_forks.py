"""Processes that fork: neither the parent nor the child loses or shares a connection."""

import pytest
from sqlalchemy.engine import URL
from sqlalchemy.util import greenlet_spawn

from sqlmodel_alembic_async import Database

from ..stress import forks
from .connections import driver, is_open, pool, run_program

on_sqlite = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
on_servers = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)

pytestmark = pytest.mark.usefixtures("db")  # It takes away what the programs leave behind.


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

    assert run_program(program, migrated_url) == "exit code 0\n"


def test_a_process_that_is_forked_while_a_thread_counts_its_connections_connects(migrated_url: URL) -> None:
    program = """
import asyncio, sys
from sqlmodel_alembic_async import Database
from tests.stress.forks import ended, forked, work

db = Database(sys.argv[1])

async def main():
    pools = {db.engine.pool, db.engine.pool.reader, getattr(db.engine.pool, "writer", db.engine.pool)}
    for pool in pools:
        pool._overflow_lock.acquire()
    print("exit code", await ended(forked(lambda: asyncio.run(work(db)))))

asyncio.run(main())
"""

    assert run_program(program, migrated_url) == "exit code 0\n"


@on_servers
def test_a_transaction_outlives_a_process_that_is_forked_in_it(migrated_url: URL) -> None:
    program = """
import asyncio, sys
from sqlmodel_alembic_async import Database, PetCreate, count_pets, create_pet
from sqlmodel_alembic_async.engines.driver_connections import socket_fd
from tests.stress.forks import ended, forked, work

db = Database(sys.argv[1])

async def main():
    async with db.reading() as session:
        before = await count_pets(session)
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))
        driver = (await (await session.connection()).get_raw_connection()).driver_connection
        socket = socket_fd(driver)
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

    assert run_program(program, migrated_url) == "rows 7 exit code 0\n"
