"""The three drivers behind one small interface, so that the hand-written SQL is written once."""

import sqlite3
from collections.abc import AsyncIterator, Iterable
from datetime import date, datetime
from itertools import count
from typing import Any

from sqlalchemy.engine import URL

from .stock import sqlite_settings

_BATCH = 1000
_POOL = 15  # As many connections as an engine opens by default, overflow included.


async def connect(url: URL) -> Any:
    """Return the driver of this URL, connected."""
    if url.drivername.startswith("sqlite"):
        import aiosqlite

        connection = await aiosqlite.connect(url.database, isolation_level=None)
        settings = await sqlite_settings(url)
        await connection.executescript(";".join(settings))
        return _Sqlite(connection, url.database, settings)
    where = {"host": url.host, "port": url.port, "user": url.username, "database": url.database}
    if url.drivername.startswith("postgresql"):
        import asyncpg

        pool = await asyncpg.create_pool(**where, password=url.password, min_size=1, max_size=_POOL)
        return _Asyncpg(pool)
    import asyncmy

    where["db"] = where.pop("database")
    pool = await asyncmy.create_pool(
        **where, password=url.password or "", minsize=1, maxsize=_POOL, autocommit=True, charset="utf8mb4"
    )
    return _Asyncmy(pool)


class _Sqlite:
    user = '"user"'
    row_values = update_returning = True

    def __init__(self, connection: Any, path: str | None, settings: list[str]) -> None:
        self.connection = connection
        self.path = path
        self.settings = settings

    async def close(self) -> None:
        await self.connection.close()

    def prepare(self, sql: str) -> str:
        return sql

    def day(self, value: date) -> str:
        return value.isoformat()

    def moment(self, value: datetime) -> str:
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")

    async def fetch(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        return await self.connection.execute_fetchall(sql, values)

    async def run(self, sql: str, values: tuple[Any, ...]) -> None:
        await self.connection.execute_fetchall(sql, values)

    async def insert(self, sql: str, values: tuple[Any, ...]) -> int:
        return (await self.connection.execute_insert(sql, values))[0]

    async def insert_many(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        # The blocking driver itself: the hand-written script that a bulk load competes with.
        connection = sqlite3.connect(self.path)
        for setting in self.settings:
            connection.execute(setting)
        with connection:
            connection.executemany(sql, rows)
        connection.close()

    async def stream(self, sql: str) -> AsyncIterator[Any]:
        async with self.connection.execute(sql) as cursor:
            while rows := await cursor.fetchmany(_BATCH):
                for row in rows:
                    yield row


class _Asyncpg:
    user = '"user"'
    row_values = update_returning = True

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    async def close(self) -> None:
        await self.pool.close()

    def prepare(self, sql: str) -> str:
        first, *rest = sql.split("?")
        numbers = count(1)
        sql = first + "".join(f"${next(numbers)}{part}" for part in rest)
        return f"{sql} RETURNING id" if sql.startswith("INSERT INTO pet") else sql

    def day(self, value: date) -> date:
        return value

    def moment(self, value: datetime) -> datetime:
        return value

    async def fetch(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        return await self.pool.fetch(sql, *values)

    async def run(self, sql: str, values: tuple[Any, ...]) -> None:
        await self.pool.execute(sql, *values)

    async def insert(self, sql: str, values: tuple[Any, ...]) -> int:
        return await self.pool.fetchval(sql, *values)

    async def insert_many(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        await self.pool.executemany(sql.removesuffix(" RETURNING id"), rows)

    async def stream(self, sql: str) -> AsyncIterator[Any]:
        async with self.pool.acquire() as connection, connection.transaction(readonly=True):
            async for row in connection.cursor(sql, prefetch=_BATCH):
                yield row


class _Asyncmy:
    user = "`user`"
    row_values = update_returning = False

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    async def close(self) -> None:
        self.pool.close()
        await self.pool.wait_closed()

    def prepare(self, sql: str) -> str:
        return sql.replace("?", "%s")

    def day(self, value: date) -> date:
        return value

    def moment(self, value: datetime) -> datetime:
        return value

    async def fetch(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(sql, values)
            return list(await cursor.fetchall())

    async def run(self, sql: str, values: tuple[Any, ...]) -> None:
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(sql, values)

    async def insert(self, sql: str, values: tuple[Any, ...]) -> int:
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(sql, values)
            return cursor.lastrowid

    async def insert_many(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await connection.begin()
            await cursor.executemany(sql, rows)
            await connection.commit()

    async def stream(self, sql: str) -> AsyncIterator[Any]:
        from asyncmy.cursors import SSCursor

        async with self.pool.acquire() as connection, connection.cursor(SSCursor) as cursor:
            await cursor.execute(sql)
            while rows := await cursor.fetchmany(_BATCH):
                for row in rows:
                    yield row
