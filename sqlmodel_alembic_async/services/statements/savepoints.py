"""Savepoints that begin, and end, the same way on every engine."""

from asyncio import CancelledError
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSessionTransaction
from sqlmodel.ext.asyncio.session import AsyncSession

from ...driver_errors import translated
from .execution import statement


@asynccontextmanager
async def savepoint(session: AsyncSession) -> AsyncIterator[AsyncSessionTransaction]:
    """Take back on an error, or where it is rolled back, what was done inside."""
    async with statement(session):
        connection = await session.connection()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        if connection.dialect.driver == "aiosqlite" and not hasattr(driver, "begin") and not driver.in_transaction:
            # An engine that is not prepare()d would begin with the savepoint, and commit where that ends.
            await connection.exec_driver_sql("BEGIN")
    cancelled = None
    with translated():
        try:
            async with session.begin_nested() as nested:
                try:
                    yield nested
                except CancelledError as error:
                    cancelled = error
                    raise
        except PendingRollbackError as error:
            raise cancelled or error from None  # The task that was cancelled is to learn that, not what it lost by it.
