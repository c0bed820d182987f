"""Alembic's commands in processes of their own, and what they leave in a database."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from textwrap import dedent, indent
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database, migrations
from sqlmodel_alembic_async.models import TABLES

Result = TypeVar("Result")

PROJECT = Path(__file__).parents[1]
INI = PROJECT / "alembic.ini"
VERSION_TABLE = "sqlmodel_alembic_async_version"

CHANGES = ("CREATE", "DROP", "INSERT", "DELETE", "UPDATE", "ALTER")  # How a statement begins that changes something.


def copy_migrations(folder: Path) -> Path:
    """Copy the migrations to where a test may write, and return the copy's alembic.ini."""
    shutil.copytree(PROJECT / "alembic", folder / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    return Path(shutil.copy(INI, folder))


def add_revision(ini: Path, operations: str) -> None:
    (ini.parent / "alembic" / "versions" / "second.py").write_text(
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        "from sqlmodel_alembic_async import columns\n"
        "revision = 'second'\n"
        f"down_revision = {migrations.head()!r}\n"
        "def upgrade():\n" + indent(dedent(operations), "    ")
    )


def start(url: URL, *arguments: str, ini: Path = INI) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "alembic", "-c", str(ini), *arguments],
        cwd="/",
        env=os.environ | {"PYTHONWARNINGS": "error", "DATABASE_URL": url.render_as_string(hide_password=False)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    with process:
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


def alembic(url: URL, *arguments: str, ini: Path = INI) -> str:
    """Run a command that must succeed, and return what it prints."""
    code, out, err = outcome(start(url, *arguments, ini=ini))
    assert code == 0, err
    return out


async def ask(db: Database, question: Callable[[sa.Connection], Result]) -> Result:
    async with db.engine.connect() as connection:
        return await connection.run_sync(question)


async def ask_once(url: URL, question: Callable[[sa.Connection], Result]) -> Result:
    async with Database(url) as db:
        return await ask(db, question)


def table_names(connection: sa.Connection) -> set[str]:
    return set(sa.inspect(connection).get_table_names())


def versions(connection: sa.Connection) -> list[str]:
    return list(connection.scalars(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")))


def definitions(connection: sa.Connection) -> dict[str, Any]:
    """Return all that the database knows of our tables, in an order of no one's choice."""
    inspector = sa.inspect(connection)
    kinds = ("columns", "check_constraints", "foreign_keys", "indexes", "unique_constraints")
    found: dict[str, Any] = {
        f"{kind} of {table}": sorted(map(repr, getattr(inspector, f"get_{kind}")(table)))
        for kind in kinds
        for table in TABLES
    }
    if connection.dialect.name == "sqlite":
        rows = connection.execute(sa.text("SELECT name, sql LIKE '%AUTOINCREMENT%' FROM sqlite_master"))
        found["autoincrement"] = {name: value for name, value in rows if name in TABLES}
    elif connection.dialect.name != "postgresql":
        found["options"] = {table: inspector.get_table_options(table) for table in TABLES}
    return found


Work = Callable[[Database], Awaitable[None]]
on_sqlite = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
on_mariadb = pytest.mark.parametrize("engine_name", ["mariadb"], indirect=True)
on_servers = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)


async def upgrade(db: Database) -> None:
    await migrations.upgrade(database=db)


async def downgrade(db: Database) -> None:
    await migrations.downgrade("base", database=db)


async def create_tables(db: Database) -> None:
    await db.create_tables()


async def execute(db: Database, *statements: str) -> None:
    async with db.engine.begin() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


def quoted(db: Database, name: str) -> str:
    return str(db.engine.dialect.identifier_preparer.quote(name))


@contextlib.contextmanager
def writer_at_work(url: URL) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(str(url.database), isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        yield writer


async def half_dropped(db: Database) -> None:
    """Leave what a downgrade does that was interrupted after its first statement."""
    await upgrade(db)
    async with db.engine.begin() as connection:
        await connection.exec_driver_sql("DROP TABLE pet")


async def half_created(db: Database) -> None:
    """Leave what an upgrade does that was interrupted before its last statements."""
    await upgrade(db)
    async with db.engine.begin() as connection:
        await connection.exec_driver_sql("DROP TABLE pet")
        await connection.exec_driver_sql(f"DELETE FROM {VERSION_TABLE}")
