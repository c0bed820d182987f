"""Alembic's commands as coroutines, which work inside a running event loop and from an installed package."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from .databases import Database
from .databases import database as default_database
from .engines import BEGIN
from .faults import translated

VERSION_TABLE = "sqlmodel_alembic_async_version"  # Of our own, so that a host's Alembic can share the database.

_PACKAGE = Path(__file__).parent
_TURN = 0.02  # Seconds between two looks whether another task of this process has ended its migration.
_alembic = threading.Lock()


async def upgrade(revision: str = "head", *, database: Database = default_database) -> None:
    """Bring the tables to this revision; another process that migrates already is waited for."""
    await _run(database, lambda config: command.upgrade(config, revision))


async def downgrade(revision: str, *, database: Database = default_database) -> None:
    """Take the tables back to this revision; "base" removes them, with all that is in them."""
    await _run(database, lambda config: command.downgrade(config, revision))


async def current(*, database: Database = default_database) -> str | None:
    """Return the revision the tables are at, or None where they were never migrated."""
    with translated(OSError):
        async with database.engine.connect() as connection:
            return await connection.run_sync(_current)


def head() -> str | None:
    """Return the newest revision that this version of the package knows."""
    return ScriptDirectory.from_config(_config()).get_current_head()


async def _run(database: Database, order: Callable[[Config], Any]) -> None:
    def run(connection: sa.Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        order(config)

    async with _alone():
        with translated(OSError):
            async with database.engine.connect() as connection:
                await connection.execution_options(**{BEGIN: "IMMEDIATE"})
                await connection.run_sync(run)


@asynccontextmanager
async def _alone() -> AsyncIterator[None]:
    # Alembic keeps its context in module globals: one process runs one command at a time, whatever its event loops.
    while not _alembic.acquire(blocking=False):  # noqa: ASYNC110  # an asyncio.Lock serves one event loop only
        await asyncio.sleep(_TURN)
    try:
        yield
    finally:
        _alembic.release()


def _config() -> Config:
    config = Config()
    installed = _PACKAGE / "alembic"
    # A checkout has the folder beside the package. Config reads "%" as the beginning of a name.
    folder = installed if installed.is_dir() else _PACKAGE.parent / "alembic"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _current(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
