"""SQLite's cursor: its rows, when they are fetched, and its end."""

import sqlite3

import pytest
from sqlalchemy import text

from sqlmodel_alembic_async import Database
from sqlmodel_alembic_async.engines.sqlite.connection import FIRST_ROWS, Connection

from . import files
from .files import ALL, NUMBERS, ROWS, numbers

# pytest looks for a fixture among the names of the test's own module.
path = files.path
connection = files.connection
other = files.other
file_db = files.file_db


async def test_fetchone_gives_one_row_after_the_other(connection: Connection) -> None:
    cursor = await connection.cursor().execute(ALL)

    rows = []
    while (row := await cursor.fetchone()) is not None:
        rows.append(row)

    assert rows == [(i,) for i in range(1, ROWS + 1)]
    assert await cursor.fetchone() is None


@pytest.mark.parametrize("size", [1, 7, FIRST_ROWS - 1, FIRST_ROWS, FIRST_ROWS + 1, ROWS - 1, ROWS, ROWS + 1])
async def test_fetchmany_gives_as_many_as_it_is_asked_for(connection: Connection, size: int) -> None:
    cursor = await connection.cursor().execute(ALL)

    batches = []
    while batch := await cursor.fetchmany(size):
        batches.append(batch)

    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert [row for batch in batches for row in batch] == [(i,) for i in range(1, ROWS + 1)]


async def test_fetchmany_gives_as_many_as_its_cursor_says(connection: Connection) -> None:
    cursor = await connection.cursor().execute(ALL)
    cursor.arraysize = 3

    assert await cursor.fetchmany() == [(1,), (2,), (3,)]


@pytest.mark.parametrize("taken", [0, 1, FIRST_ROWS, FIRST_ROWS + 1, ROWS])
async def test_fetchall_gives_the_rows_that_are_left(connection: Connection, taken: int) -> None:
    cursor = await connection.cursor().execute(ALL)
    await cursor.fetchmany(taken)

    assert await cursor.fetchall() == [(i,) for i in range(taken + 1, ROWS + 1)]
    assert await cursor.fetchall() == []


@pytest.mark.parametrize("rows", [0, 1, FIRST_ROWS - 1, FIRST_ROWS, FIRST_ROWS + 1])
async def test_no_row_is_lost_where_the_first_ones_end(connection: Connection, rows: int) -> None:
    cursor = await connection.cursor().execute(f"SELECT * FROM ({ALL}) LIMIT {rows}")

    assert [row async for row in cursor] == [(i,) for i in range(1, rows + 1)]


async def test_a_cursor_can_be_used_again(connection: Connection) -> None:
    async with connection.cursor() as cursor:
        await cursor.execute(ALL)
        await cursor.execute("SELECT ?", (7,))

        assert await cursor.fetchall() == [(7,)]


async def test_a_cursor_is_awaited_as_aiosqlites_is(connection: Connection) -> None:
    cursor = await connection.cursor()

    await cursor.execute("SELECT 1")

    assert await cursor.fetchone() == (1,)


async def test_a_statement_without_rows_has_none_to_fetch(connection: Connection) -> None:
    async with connection.cursor() as cursor:
        await cursor.execute("INSERT INTO number VALUES (1)")

        assert (cursor.rowcount, cursor.lastrowid) == (1, 1)
        assert await cursor.fetchone() is None
        assert await cursor.fetchall() == []


async def test_many_statements_and_scripts_are_executed_as_by_aiosqlite(connection: Connection, path: str) -> None:
    async with connection.cursor() as cursor:
        await cursor.executemany("INSERT INTO number VALUES (?)", [(1,), (2,)])
        rowcount = cursor.rowcount
    await connection.executemany("INSERT INTO number VALUES (?)", [(3,), (4,)])
    await connection.executescript("INSERT INTO number VALUES (5); INSERT INTO number VALUES (6);")

    assert rowcount == 2
    assert numbers(path) == [1, 2, 3, 4, 5, 6]


async def test_a_stream_fetches_what_is_asked_for(file_db: Database) -> None:
    made = 0

    def make(i: int) -> int:
        nonlocal made
        made += 1
        return i

    async with file_db.engine.connect() as connection:
        await (await connection.get_raw_connection()).driver_connection.create_function("make", 1, make)
        result = await connection.stream(text(NUMBERS.format(100_000, "make(i)")))
        first = await result.fetchmany(3)
        made_at_first = made
        await result.fetchmany(FIRST_ROWS)
        made_then = made
        await result.close()
        await connection.exec_driver_sql("SELECT 1")

    assert first == [(1,), (2,), (3,)]
    assert made_at_first <= FIRST_ROWS + 1  # The driver is one row ahead.
    assert made == made_then <= 2 * FIRST_ROWS + 1


@pytest.mark.parametrize("let_go", ["close", "rollback"])
async def test_rows_that_nobody_wants_hold_no_lock(
    connection: Connection, other: sqlite3.Connection, let_go: str
) -> None:
    await connection.executemany("INSERT INTO number VALUES (?)", [(i,) for i in range(ROWS)])
    await connection.commit()
    cursor = await connection.cursor().execute("SELECT i FROM number")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("DELETE FROM number")

    await (cursor.close() if let_go == "close" else connection.rollback())
    await connection.run(lambda: None)  # The thread is done with it.

    other.execute("DELETE FROM number")


async def test_a_closed_cursor_executes_nothing(connection: Connection) -> None:
    cursor = connection.cursor()
    await cursor.execute("SELECT 1")
    await cursor.close()

    with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):
        await cursor.execute("SELECT 1")
    with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):
        await cursor.executemany("INSERT INTO number VALUES (?)", [(1,)])


async def test_a_cursor_that_executed_nothing_has_no_rows(connection: Connection) -> None:
    cursor = connection.cursor()

    assert await cursor.fetchone() is None
    assert await cursor.fetchall() == []
    await cursor.close()


async def test_a_cursor_whose_statement_failed_can_be_closed(connection: Connection) -> None:
    async with connection.cursor() as cursor:
        with pytest.raises(sqlite3.OperationalError, match="nonsense"):
            await cursor.execute("SELECT nonsense")
