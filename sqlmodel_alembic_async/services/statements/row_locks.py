"""Lock a row before it is read and changed: the row on a server, the whole database on SQLite."""

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

from ...engines.begin_mode import begin_mode
from ...fields import is_id
from ...models import Row
from ...undo import REMEMBERED
from . import prebuilt
from .execution import dialect_of, fetch_one, statement


async def fetch_locked(session: AsyncSession, model: type[Row], row_id: int) -> Row | None:
    """Lock one row until the end of the transaction, and return its newest version; None if it does not exist."""
    if not is_id(row_id):
        return None
    await lock_database(session, model)
    return await fetch_one(session, prebuilt.locking_selection(model), {"row_id": row_id})


async def lock_database(session: AsyncSession, model: type[Row]) -> None:
    """On SQLite, take the write lock, if the transaction did not begin with it; a server locks rows instead.

    SQLite would take it at the first write, and then fail if the database changed since the first read.
    """
    if dialect_of(session, model).name != "sqlite":
        return
    async with statement(session):
        connection = await session.connection(bind_arguments={"mapper": model})
        if await connection.run_sync(begin_mode) != "IMMEDIATE":
            # A write of no row: it takes the lock, and leaves nothing to store.
            columns = sa.inspect(model).local_table.c
            no_row = sa.update(model).where(sa.false()).values(version=columns.version)
            await session.exec(no_row, execution_options={"synchronize_session": False, **REMEMBERED})
