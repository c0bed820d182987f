"""Throw-away databases on real servers: one for each test that asks for one."""

import asyncio
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import create_async_engine

ENGINES = ("sqlite", "postgresql", "mariadb")
_SERVERS = {
    "postgresql": make_url(
        os.environ.get("TEST_POSTGRESQL_URL", "postgresql+asyncpg://postgres@127.0.0.1:5432/postgres")
    ),
    "mariadb": make_url(os.environ.get("TEST_MARIADB_URL", "mysql+asyncmy://root@127.0.0.1:3306/mysql")),
}


def on_server(engine: str, *statements: str) -> None:
    """Run statements on a server's own database, each by itself; skip the test where there is no server."""

    async def run() -> Exception | None:
        server = create_async_engine(_SERVERS[engine], isolation_level="AUTOCOMMIT")
        try:
            connection = await server.connect()
        except Exception as error:
            # Any failure to reach the server counts; which ones there are is the driver's business.
            return error
        for statement in statements:
            await connection.execute(text(statement))
        await connection.close()
        await server.dispose()
        return None

    if (error := asyncio.run(run())) is not None:
        if os.environ.get("TEST_ALL_ENGINES"):
            raise error
        pytest.skip(f"no {engine} server: {type(error).__name__} (TEST_{engine.upper()}_URL names another one)")


@contextmanager
def new_database(engine: str, folder: Path) -> Iterator[URL]:
    """Make an empty database and drop it afterwards."""
    name = f"sqlmodel_alembic_async_test_{secrets.token_hex(6)}"
    if engine == "sqlite":
        yield make_url(f"sqlite+aiosqlite:///{folder / name}.db")
        return
    # What waits for a lock that nobody gives back fails, and does not hang.
    if engine == "postgresql":
        create = (f"CREATE DATABASE {name}", f"ALTER DATABASE {name} SET lock_timeout = '60s'")
        drop = (f"DROP DATABASE {name} WITH (FORCE)",)
    else:
        create = (f"CREATE DATABASE {name}",)
        drop = ("SET SESSION lock_wait_timeout = 60", f"DROP DATABASE {name}")
    on_server(engine, *create)
    try:
        yield _SERVERS[engine].set(database=name)
    finally:
        on_server(engine, *drop)
