"""Dependencies that give an endpoint of your own a session; the COMMIT is before the response.

SessionDependency and ReadingDependency are types of parameters, as in `async def add(session: SessionDependency)`. They
use the default database.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends

from ..databases import AsyncSession, Database, get_session
from ..databases import database as default_database


def session_dependency(database: Database) -> Any:
    """Return a dependency that runs each request in one transaction() of this database, and gives its session.

    Use it in `Annotated[AsyncSession, session_dependency(database)]`. The transaction is committed before the response
    is sent: if the commit fails, the client gets an error.
    """

    async def get_own_session() -> AsyncIterator[AsyncSession]:
        async with database.transaction() as session:
            yield session

    return Depends(get_own_session, scope="function")


def reading_dependency(database: Database) -> Any:
    """Return a dependency that gives each request a session of reading(): read-only, and it waits for no writer.

    Use it in `Annotated[AsyncSession, reading_dependency(database)]`.
    """

    async def get_own_session() -> AsyncIterator[AsyncSession]:
        async with database.reading() as session:
            yield session

    return Depends(get_own_session, scope="function")


async def get_reading_session() -> AsyncIterator[AsyncSession]:
    """Yield a session of reading() of the default database."""
    async with default_database.reading() as session:
        yield session


# Not by session_dependency(): so the keys for `dependency_overrides` are get_session and get_reading_session.
SessionDependency = Annotated[AsyncSession, Depends(get_session, scope="function")]
ReadingDependency = Annotated[AsyncSession, Depends(get_reading_session, scope="function")]
