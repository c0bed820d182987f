"""Savepoints that work the same way on every engine."""

from asyncio import CancelledError
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSessionTransaction
from sqlmodel.ext.asyncio.session import AsyncSession

from ...driver_errors import translated
from .execution import refuse_reader, statement


@asynccontextmanager
async def savepoint(session: AsyncSession) -> AsyncIterator[AsyncSessionTransaction]:
    """Run the block in a savepoint; roll back on an error, or if the caller rolls back what is yielded.

    Raises:
        StorageError: The session is read-only, as that of reading() is.

    """
    refuse_reader(session)
    async with statement(session):
        connection = await session.connection()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        if connection.dialect.driver == "aiosqlite" and not hasattr(driver, "begin") and not driver.in_transaction:
            # Without BEGIN, SQLite commits at the release of the outermost savepoint. A prepared engine sends BEGIN.
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
            raise cancelled or error from None  # A cancelled task must get CancelledError.
