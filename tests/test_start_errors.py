"""What is wrong with the settings or the database is told in one line, in place of a traceback."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, ProgrammingError

from sqlmodel_alembic_async import Database, PetManagementError, migrations
from sqlmodel_alembic_async.start_errors import why_not_connected, why_not_migrated

from .migrating import (
    INI,
    add_revision,
    copy_migrations,
    execute,
    on_postgresql,
    on_sqlite,
    outcome,
    start,
    writer_at_work,
)

CHOOSE = "; use sqlite://, postgresql://, mariadb:// or mysql://, which choose their driver"
UNREACHABLE = "the database cannot be reached, or it refused the connection"


def alembic(*arguments: str, before: str = "", **environment: str) -> tuple[int, str, list[str]]:
    """Run an `alembic` command after a piece of code; return its exit code, its output and its lines of errors."""
    program = f"import sys\n{before}\nfrom alembic.config import main\nmain(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, "-c", str(INI), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, [line for line in done.stderr.splitlines() if not line.startswith("INFO ")]


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("ada:secret", "DATABASE_URL: not a database URL: expected driver://user:password@host/name"),
        ("django://ada:secret@h/x", r"DATABASE_URL: unknown database or driver django: use sqlite, .*, mariadb"),
        ("postgresql+pg8000://ada:secret@h/x", r"DATABASE_URL: postgresql\+pg8000 is not .*: use postgresql\+asyncpg"),
        ("sqlite+pysqlite:///x.db", r"DATABASE_URL: sqlite\+pysqlite is not an async driver: use sqlite\+aiosqlite"),
        ("mysql+aiomysql://ada:secret@h/x", f"DATABASE_URL: No module named 'aiomysql'{CHOOSE}"),
        ("postgresql://ada@127.0.0.1/x?secret=1", r"DATABASE_URL: connect\(\) got an unexpected keyword argument .*"),
        ("postgresql://ada:secret@127.0.0.1:1/x", rf"{UNREACHABLE} \(builtins.ConnectionRefusedError\): check .* runs"),
        ("mysql://ada:secret@127.0.0.1:1/x", rf"{UNREACHABLE} \(asyncmy.*2003\): check DATABASE_URL, and that .* runs"),
        ("sqlite:////nowhere/x.db", r"the database cannot be opened: check that the folder exists .* \(sqlite3.*\)"),
    ],
)
def test_a_command_that_cannot_connect_says_why_in_one_line(url: str, line: str) -> None:
    code, out, errors = alembic("upgrade", "head", DATABASE_URL=url)

    assert (code, out, len(errors)) == (1, "", 1), errors
    pattern = line if "\\" in line or ".*" in line else re.escape(line)
    assert re.fullmatch(f"FAILED: {pattern}", errors[0])
    assert "secret" not in errors[0] or url.endswith("secret=1")


def test_a_missing_driver_is_told_with_the_extra_that_has_it() -> None:
    hidden = "sys.modules['asyncpg'] = None"

    told = alembic("upgrade", "head", before=hidden, DATABASE_URL="postgresql://h/x")

    assert told == (1, "", ["FAILED: asyncpg is not installed: pip install 'sqlmodel-alembic-async[postgresql]'"])


def test_a_setting_with_an_unknown_value_is_named(tmp_path: Path) -> None:
    told = alembic("upgrade", "head", DATABASE_URL=f"sqlite:///{tmp_path}/x.db", SQLITE_SYNCHRONOUS="OFF")

    assert told == (1, "", ["FAILED: SQLITE_SYNCHRONOUS: Input should be 'NORMAL', 'FULL' or 'EXTRA'"])


def test_a_command_that_only_prints_sql_says_why_in_one_line() -> None:
    line = "FAILED: DATABASE_URL: not a database URL: expected driver://user:password@host/name"

    assert alembic("upgrade", "head", "--sql", DATABASE_URL="nonsense") == (1, "", [line])


@on_sqlite
def test_a_locked_database_is_told_in_one_line(empty_url: URL) -> None:
    impatient = "from sqlmodel_alembic_async import schema_locks\nschema_locks.SQLITE_LOCK_TIMEOUT = 0"

    with writer_at_work(empty_url):
        code, out, [line] = alembic(
            "upgrade", "head", before=impatient, DATABASE_URL=f"{empty_url.set(query={'timeout': '0'})}"
        )

    assert (code, out) == (1, "")
    assert line == (
        "FAILED: another transaction, which may be idle, holds a lock on the database, the table or the row: end that"
        " transaction, and repeat this one (sqlite3.OperationalError SQLITE_BUSY)"
    )


async def test_a_table_that_is_another_ones_is_told_in_one_line(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await execute(db, "CREATE TABLE pet (id int)")

    code, out, [line] = alembic("upgrade", "head", DATABASE_URL=empty_url.render_as_string(hide_password=False))

    assert (code, out) == (1, "")
    assert line.startswith("FAILED: ")
    assert "pet" in line


def test_a_mistake_in_a_revision_keeps_its_traceback(empty_url: URL, tmp_path: Path) -> None:
    ini = copy_migrations(tmp_path)
    add_revision(ini, "op.execute('SELECT nonsense FROM nowhere')")

    code, _, err = outcome(start(empty_url, "upgrade", "head", ini=ini))

    assert code == 1
    assert "Traceback" in err
    assert "SELECT nonsense FROM nowhere" in err


def test_the_traceback_is_there_for_who_asks_for_it() -> None:
    code, _, errors = alembic("--raiseerr", "upgrade", "head", DATABASE_URL="nonsense")

    assert code == 1
    assert errors[-1] == "ValueError: not a database URL: expected driver://user:password@host/name"
    assert "Traceback (most recent call last):" in errors


def test_a_program_that_calls_alembic_gets_the_error_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "nonsense")

    with pytest.raises(ValueError, match="not a database URL"):
        command.upgrade(Config(str(INI)), "head")


async def test_a_coroutine_raises_the_error_itself() -> None:
    async with Database("postgresql://127.0.0.1:1/x") as db:
        with pytest.raises(PetManagementError, match=f"^{UNREACHABLE}$"):
            await migrations.upgrade(database=db)


@on_postgresql
async def test_a_right_that_is_missing_is_told_and_other_refusals_are_not(db: Database) -> None:
    async def error_of(statement: str) -> Exception:
        with pytest.raises(ProgrammingError) as caught:
            await execute(db, "SET ROLE pg_monitor", statement)
        return caught.value

    lacks_right = await error_of("CREATE TABLE public.clinic (id int)")
    assert why_not_migrated(lacks_right) == (
        "the user of the database URL lacks a right on the table or the schema: grant it"
    )
    assert why_not_migrated(await error_of("SELECT nonsense")) is None


def test_a_reason_is_one_line() -> None:
    assert why_not_connected(ArgumentError("no such\nthing")) == f"DATABASE_URL: no such{CHOOSE}"
