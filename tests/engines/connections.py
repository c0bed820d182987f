"""What the tests of pools ask of a database and its connections."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database


def pool(db: Database) -> Any:
    return db.engine.sync_engine.pool


async def driver(db: Database) -> Any:
    async with db.engine.connect() as connection:
        await connection.exec_driver_sql("SELECT 1")
        return (await connection.get_raw_connection()).driver_connection


def is_open(connection: Any) -> bool:
    if hasattr(connection, "_thread"):
        return bool(connection._thread.is_alive())
    return not connection.is_closed() if hasattr(connection, "is_closed") else bool(connection.connected)


def run_program(program: str, url: URL, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", program]
    ended = subprocess.run(
        [*command, url.render_as_string(hide_password=False), *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.stdout + ended.stderr
