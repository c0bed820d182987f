"""What is called on the thread of a connection, and its answers."""

import asyncio
from typing import Any

import pytest

from sqlmodel_alembic_async.engines.sqlite.connection import Connection, connect

from . import files
from .files import Blocked

path = files.path


def test_an_answer_to_an_event_loop_that_is_closed_hurts_nobody(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "aiosqlite")
    blocked = Blocked()

    async def leave() -> Connection:
        connection = await connect(path)
        leave.task = asyncio.create_task(connection.run(blocked))  # type: ignore[attr-defined]
        await blocked.has_started()
        return connection

    async def go_on(connection: Connection) -> list[Any]:
        rows = await connection.execute_fetchall("SELECT 1")
        await connection.close()
        return list(rows)

    connection = asyncio.run(leave())
    blocked.released.set()

    assert asyncio.run(go_on(connection)) == [(1,)]
    assert "returning exception" not in caplog.text
