"""A cursor that fetches the first rows together with the statement, and further rows on demand."""

import sqlite3
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any, Protocol, Self

import aiosqlite

FIRST_ROWS = 1024  # More than one page of a list, so that a page needs one call in the thread.


class _Connection(Protocol):
    """The part of a connection that a cursor uses."""

    _conn: sqlite3.Connection

    async def run(self, fn: Callable[..., Any], *args: Any) -> Any: ...
    def send(self, function: Callable[[], Any]) -> None: ...
    def fetch(self, cursor: sqlite3.Cursor, size: int | None) -> list[Any]: ...
    def finish(self, cursor: sqlite3.Cursor) -> None: ...


class Cursor(aiosqlite.Cursor):
    """aiosqlite's cursor with a buffer of fetched rows."""

    _conn: _Connection  # type: ignore[assignment]  # narrower than in aiosqlite

    def __init__(self, connection: Any) -> None:
        super().__init__(connection, connection._conn.cursor())
        connection.cursors.add(self._cursor)
        self._rows: deque[Any] = deque()
        self._finished = True
        self._is_closed = False

    def __await__(self) -> Generator[Any, None, Self]:
        """Return the cursor: aiosqlite's connection.cursor() returns an awaitable, too."""
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        """Return the cursor."""
        return self

    async def execute(self, sql: str, parameters: Iterable[Any] | None = None) -> Self:
        """Execute a statement, and fetch its first rows."""
        return await self._run(self._cursor.execute, sql, () if parameters is None else parameters)

    async def executemany(self, sql: str, parameters: Iterable[Iterable[Any]]) -> Self:
        """Execute a statement once for each set of parameters."""
        return await self._run(self._cursor.executemany, sql, parameters)

    async def fetchone(self) -> Any:
        """Return the next row, or None after the last row."""
        return next(iter(await self.fetchmany(1)), None)

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return at most `size` further rows (default: `arraysize`); fewer only at the end of the result."""
        size = self.arraysize if size is None else size
        if not self._finished and len(self._rows) < size:
            wanted = max(size, FIRST_ROWS)
            self._add_rows(await self._conn.run(self._conn.fetch, self._cursor, wanted), wanted)
        return [self._rows.popleft() for _ in range(min(size, len(self._rows)))]

    async def fetchall(self) -> list[Any]:
        """Return all remaining rows."""
        rows = list(self._rows)
        self._rows.clear()
        if not self._finished:
            rows += await self._conn.run(self._conn.fetch, self._cursor, None)
            self._finished = True
        return rows

    async def close(self) -> None:
        """Close the cursor, and release SQLite's read lock without waiting for it."""
        self._is_closed = True
        self._rows.clear()
        if not self._finished:
            self._finished = True
            self._conn.send(lambda: self._conn.finish(self._cursor))

    async def _run(self, execute: Callable[..., Any], sql: str, parameters: Any) -> Self:
        def work() -> list[Any]:
            execute(sql, parameters)
            return self._conn.fetch(self._cursor, FIRST_ROWS)

        if self._is_closed:
            raise sqlite3.ProgrammingError("Cannot operate on a closed cursor.")
        self._rows.clear()
        self._add_rows(await self._conn.run(work), FIRST_ROWS)
        return self

    def _add_rows(self, rows: list[Any], wanted: int) -> None:
        self._rows.extend(rows)
        self._finished = len(rows) < wanted
