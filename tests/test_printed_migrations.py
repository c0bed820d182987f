"""Migrations that Alembic prints as SQL, for somebody else to run."""

import re
import sqlite3
from pathlib import Path

import asyncmy
import asyncpg
import pytest
from sqlalchemy.engine import URL, make_url

from sqlmodel_alembic_async import migrations

from .migrating import VERSION_TABLE, add_revision, alembic, ask_once, copy_migrations, table_names, versions


async def test_the_printed_sql_builds_the_same_tables(empty_url: URL, engine_name: str) -> None:
    script = alembic(empty_url, "upgrade", "head", "--sql")

    await FEEDERS[engine_name](empty_url, script)

    alembic(empty_url, "check")
    assert await ask_once(empty_url, versions) == [migrations.head()]


async def test_the_printed_sql_of_a_downgrade_removes_the_tables(empty_url: URL, engine_name: str) -> None:
    alembic(empty_url, "upgrade", "head")

    script = alembic(empty_url, "downgrade", f"{migrations.head()}:base", "--sql")
    await FEEDERS[engine_name](empty_url, script)

    assert await ask_once(empty_url, table_names) == {VERSION_TABLE}
    assert await ask_once(empty_url, versions) == []


@pytest.mark.parametrize("driver", ["mysql", "mariadb"])
def test_the_printed_sql_for_mysql_is_written_for_mariadb(driver: str) -> None:
    script = alembic(make_url(f"{driver}://nobody@127.0.0.1:1/nothing"), "upgrade", "head", "--sql")

    assert "name VARCHAR(100) COLLATE utf8mb4_nopad_bin NOT NULL" in script
    assert "notes LONGTEXT COLLATE utf8mb4_nopad_bin" in script
    assert "created_at DATETIME(6) NOT NULL" in script
    assert set(re.findall(r"COLLATE (\w+)", script)) == {"utf8mb4_nopad_bin"}


async def feed_sqlite(url: URL, script: str) -> None:
    connection = sqlite3.connect(str(url.database))
    connection.executescript(script)
    connection.close()


async def feed_postgresql(url: URL, script: str) -> None:
    connection = await asyncpg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False))
    await connection.execute(script)
    await connection.close()


async def feed_mariadb(url: URL, script: str) -> None:
    account = {"host": url.host, "port": url.port, "user": url.username, "password": url.password or ""}
    connection = await asyncmy.connect(db=url.database, **account)
    lines = "\n".join(line for line in script.splitlines() if not line.startswith("--"))
    async with connection.cursor() as cursor:
        for statement in filter(str.strip, lines.split(";\n")):
            await cursor.execute(statement)
    await connection.commit()
    await connection.ensure_closed()


FEEDERS = {"sqlite": feed_sqlite, "postgresql": feed_postgresql, "mariadb": feed_mariadb}


def test_a_percent_sign_is_printed_as_it_is(empty_url: URL, tmp_path: Path) -> None:
    ini = copy_migrations(tmp_path / "checkout")
    add_revision(ini, """op.execute("UPDATE pet SET color = '100%'")""")

    script = alembic(empty_url, "upgrade", f"{migrations.head()}:second", "--sql", ini=ini)

    assert "UPDATE pet SET color = '100%'" in script
