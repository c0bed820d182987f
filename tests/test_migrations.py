"""Migrations: Alembic's commands from the shell and as coroutines, against real databases."""

import ast
import inspect
import os
import re
import secrets
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.engine import URL, make_url
from sqlmodel import SQLModel

from sqlmodel_alembic_async import (
    ConflictError,
    Database,
    DatabaseError,
    DatabaseUnavailableError,
    PetCreate,
    UserCreate,
    UserNotFoundError,
    count_pets,
    create_pet,
    create_user,
    list_pets,
    migrations,
)
from sqlmodel_alembic_async.models import TABLES

from .migrating import (
    CHANGES,
    PROJECT,
    VERSION_TABLE,
    add_revision,
    alembic,
    ask,
    ask_once,
    copy_migrations,
    definitions,
    outcome,
    start,
    table_names,
    versions,
)
from .servers import new_database, on_server

HOST_ENV = """
import asyncio
import inspect
import os

import sqlalchemy as sa
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine

metadata = sa.MetaData()
sa.Table("clinic", metadata, sa.Column("id", sa.Integer, primary_key=True))


def include_name(name, kind, parents):
    return kind != "table" or name in metadata.tables


def migrate(connection):
    context.configure(connection=connection, target_metadata=metadata, include_name=include_name)
    with context.begin_transaction():
        context.run_migrations()


async def main():
    engine = create_async_engine(os.environ["DATABASE_URL"])
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


asyncio.run(main())
"""


def lengths_of_user_columns(connection: sa.Connection) -> dict[str, int | None]:
    return {
        column["name"]: getattr(column["type"], "length", None) for column in sa.inspect(connection).get_columns("user")
    }


def names_in_database(connection: sa.Connection) -> set[str | None]:
    inspector = sa.inspect(connection)
    questions: list[Callable[[str], list[Any]]] = [
        inspector.get_check_constraints,
        inspector.get_foreign_keys,
        inspector.get_indexes,
        inspector.get_unique_constraints,
        lambda table: [inspector.get_pk_constraint(table)],
    ]
    return {item["name"] for question in questions for table in TABLES for item in question(table)}


def names_in_models() -> set[Any]:
    tables = [SQLModel.metadata.tables[name] for name in TABLES]
    return {item.name for table in tables for item in (*table.constraints, *table.indexes)}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The alembic.ini of a copy of the migrations, where a test may write."""
    return copy_migrations(tmp_path / "checkout")


def scripts(ini: Path) -> ScriptDirectory:
    return ScriptDirectory(ini.parent / "alembic")


async def upgrade_from(ini: Path, db: Database) -> None:
    """Upgrade as migrations.upgrade() does, with the revisions of a copy."""

    def upgrade(connection: sa.Connection) -> None:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(ini.parent / "alembic"))
        config.set_main_option("path_separator", "os")
        command.upgrade(config, "head")

    await ask(db, upgrade)


async def test_upgrade_makes_tables_to_which_autogenerate_has_nothing_to_add(empty_url: URL, engine_name: str) -> None:
    alembic(empty_url, "upgrade", "head")

    alembic(empty_url, "check")
    expected = names_in_models()
    if engine_name != "postgresql":  # The others keep no name of a primary key.
        expected = {name for name in expected if not name.startswith("pk_")} | {None}
    assert await ask_once(empty_url, names_in_database) == expected


async def test_migrated_tables_are_those_that_create_tables_makes(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await migrations.upgrade(database=db)
        migrated = await ask(db, definitions)
        await migrations.downgrade("base", database=db)

        await db.create_tables()

        assert await ask(db, definitions) == migrated


async def test_downgrade_to_base_leaves_only_the_version_table(empty_url: URL) -> None:
    alembic(empty_url, "upgrade", "head")

    alembic(empty_url, "downgrade", "base")

    assert await ask_once(empty_url, table_names) == {VERSION_TABLE}
    assert await ask_once(empty_url, versions) == []


async def test_plain_commands_work_from_any_folder(empty_url: URL) -> None:
    head = str(migrations.head())

    alembic(empty_url, "upgrade", "head")
    current = alembic(empty_url, "current")
    history = alembic(empty_url, "history")
    alembic(empty_url, "downgrade", "-1")
    current_afterwards = alembic(empty_url, "current")

    assert current.split() == [head, "(head)"]
    assert f"{head} (head)" in history
    assert current_afterwards == ""


def test_check_fails_where_a_migration_is_missing(empty_url: URL, checkout: Path) -> None:
    for revision in (checkout.parent / "alembic" / "versions").glob("*.py"):
        revision.unlink()

    code, out, err = outcome(start(empty_url, "check", ini=checkout))

    assert code != 0
    assert "New upgrade operations detected" in out + err


async def test_a_revision_generated_on_migrated_tables_is_empty(empty_url: URL, checkout: Path) -> None:
    async with Database(empty_url) as db:
        await migrations.upgrade(database=db)

    alembic(empty_url, "revision", "--autogenerate", "-m", "nothing", ini=checkout)

    directory = scripts(checkout)
    generated = directory.get_revision("head")
    assert generated.down_revision == migrations.head()
    for function in (generated.module.upgrade, generated.module.downgrade):
        [definition] = ast.parse(inspect.getsource(function)).body
        assert isinstance(definition, ast.FunctionDef)
        assert [type(statement) for statement in definition.body[1:]] == [ast.Pass]


def test_a_revision_generated_on_any_engine_builds_the_tables_on_sqlite_too(
    empty_url: URL, checkout: Path, tmp_path: Path
) -> None:
    sqlite_url = make_url(f"sqlite:///{tmp_path / 'other.db'}")
    for revision in (checkout.parent / "alembic" / "versions").glob("*.py"):
        revision.unlink()

    alembic(empty_url, "revision", "--autogenerate", "-m", "everything", ini=checkout)

    for url in (empty_url, sqlite_url):
        alembic(url, "upgrade", "head", ini=checkout)
        alembic(url, "check", ini=checkout)


async def test_a_rebuilt_table_loses_no_row_that_refers_to_it(empty_url: URL, checkout: Path) -> None:
    add_revision(
        checkout,
        """
        with op.batch_alter_table("user") as batch:
            batch.add_column(sa.Column("nickname", sa.String(20)))
            batch.alter_column("city", existing_type=columns.Text(80), type_=columns.Text(120))
        """,
    )
    async with Database(empty_url) as db:
        owner_id = await populate(db)

        await upgrade_from(checkout, db)

        columns = await ask(db, lengths_of_user_columns)
        assert (columns["nickname"], columns["city"]) == (20, 120)
        async with db.reading() as session:
            assert await count_pets(session, owner_id=owner_id) == 2
        await expect_foreign_keys(db)


async def test_a_migration_that_would_leave_orphans_changes_nothing(empty_url: URL, checkout: Path) -> None:
    add_revision(
        checkout,
        """
        op.execute(sa.delete(sa.table("user")))
        with op.batch_alter_table("user") as batch:
            batch.add_column(sa.Column("nickname", sa.String(20)))
        """,
    )
    async with Database(empty_url) as db:
        owner_id = await populate(db)
        before = await ask(db, definitions)

        with pytest.raises((ConflictError, sa.exc.IntegrityError)):
            await upgrade_from(checkout, db)

        assert await ask(db, definitions) == before
        assert await ask(db, versions) == [migrations.head()]
        async with db.reading() as session:
            assert await count_pets(session, owner_id=owner_id) == 2
        await expect_foreign_keys(db)


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
async def test_orphans_that_a_host_has_already_are_no_hindrance(empty_url: URL, checkout: Path) -> None:
    add_revision(checkout, """op.execute("UPDATE pet SET color = 'black'")""")
    async with Database(empty_url) as db:
        await populate(db)
        async with db.engine.connect() as connection:
            await connection.exec_driver_sql("CREATE TABLE clinic (id INTEGER PRIMARY KEY, pet_id REFERENCES pet (id))")
            await connection.commit()
        host = sqlite3.connect(str(empty_url.database))
        host.execute("INSERT INTO clinic VALUES (1, 999)")
        host.commit()
        host.close()

        await upgrade_from(checkout, db)

        async with db.reading() as session:
            assert {pet.color for pet in (await list_pets(session)).items} == {"black"}


async def test_foreign_keys_are_enforced_on_the_connection_that_migrated(empty_url: URL, checkout: Path) -> None:
    add_revision(checkout, "raise RuntimeError")
    connections = []
    async with Database(empty_url) as db:
        sa.event.listen(db.engine.sync_engine, "connect", lambda connection, record: connections.append(connection))
        await migrations.upgrade(database=db)
        await expect_foreign_keys_in_plain_session(db)
        with pytest.raises(RuntimeError):
            await upgrade_from(checkout, db)
        await expect_foreign_keys_in_plain_session(db)

    assert len(connections) == 1


async def expect_foreign_keys_in_plain_session(db: Database) -> None:
    async with db.session() as session:
        with pytest.raises(UserNotFoundError):
            await create_pet(session, PetCreate(name="Stray", owner_id=999_999))


async def populate(db: Database) -> int:
    """Migrate, and store an owner of two pets."""
    await migrations.upgrade(database=db)
    async with db.transaction() as session:
        owner = await create_user(session, UserCreate(name="Ada"))
        for name in ("Rex", "Tom"):
            await create_pet(session, PetCreate(name=name, owner_id=owner.id))
    assert owner.id is not None
    return owner.id


async def expect_foreign_keys(db: Database) -> None:
    with pytest.raises(UserNotFoundError):
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Stray", owner_id=999_999))


@pytest.mark.parametrize("operation", [migrations.upgrade, migrations.downgrade])
async def test_a_database_of_a_newer_version_is_refused(empty_url: URL, operation: Any) -> None:
    async with Database(empty_url) as db:
        owner_id = await populate(db)
        async with db.engine.begin() as connection:
            await connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = 'newer'"))

        with pytest.raises(DatabaseError, match="revision newer, which this version of the package does not know"):
            await operation("base" if operation is migrations.downgrade else "head", database=db)

        assert await migrations.current(database=db) == "newer"
        async with db.reading() as session:
            assert await count_pets(session, owner_id=owner_id) == 2


async def test_a_plain_command_on_a_database_of_a_newer_version_says_so_in_alembics_words(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await migrations.upgrade(database=db)
        async with db.engine.begin() as connection:
            await connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = 'newer'"))

    code, out, err = outcome(start(empty_url, "upgrade", "head"))

    assert code != 0
    assert "Can't locate revision identified by 'newer'" in out + err
    assert "Traceback" not in err


@pytest.mark.parametrize("operation", [migrations.upgrade, migrations.downgrade])
async def test_a_revision_that_does_not_exist_is_refused(empty_url: URL, operation: Any) -> None:
    async with Database(empty_url) as db:
        await migrations.upgrade(database=db)

        for revision in ("nope", "+7", "-7", "base:head"):
            with pytest.raises(ValueError, match=re.escape(f"cannot migrate to '{revision}': ")):
                await operation(revision, database=db)
        with pytest.raises(ValueError, match="must not be empty"):
            await operation("", database=db)

        assert await migrations.current(database=db) == migrations.head()


async def test_several_stored_revisions_are_all_told(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await migrations.upgrade(database=db)
        async with db.engine.begin() as connection:
            await connection.execute(sa.text(f"INSERT INTO {VERSION_TABLE} VALUES ('newer')"))

        assert await migrations.current(database=db) == f"{migrations.head()}, newer"
        with pytest.raises(DatabaseError, match="revision newer"):
            await migrations.upgrade(database=db)


@pytest.mark.parametrize("attempt", [1, 2])
async def test_four_processes_upgrading_at_once_all_succeed(empty_url: URL, checkout: Path, attempt: int) -> None:
    add_revision(checkout, "op.create_table('clinic', sa.Column('id', sa.Integer, primary_key=True))")
    processes = [start(empty_url, "upgrade", "head", ini=checkout) for _ in range(4)]

    outcomes = [outcome(process) for process in processes]

    assert [code for code, out, err in outcomes] == [0, 0, 0, 0], outcomes
    assert sum(err.count("Running upgrade") for code, out, err in outcomes) == 2
    assert await ask_once(empty_url, table_names) == {*TABLES, "clinic", VERSION_TABLE}
    assert await ask_once(empty_url, versions) == ["second"]


async def test_coroutines_upgrade_and_downgrade_inside_a_running_loop(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        assert await migrations.current(database=db) is None

        await migrations.upgrade(database=db)
        assert await migrations.current(database=db) == migrations.head()
        assert await ask(db, table_names) == {*TABLES, VERSION_TABLE}

        await migrations.downgrade("base", database=db)
        assert await migrations.current(database=db) is None
        assert await ask(db, table_names) == {VERSION_TABLE}


async def test_a_second_upgrade_or_downgrade_does_nothing(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await migrations.upgrade(database=db)
        changes: list[str] = []
        sa.event.listen(db.engine.sync_engine, "before_cursor_execute", partial(note_change, changes))

        await migrations.upgrade(database=db)
        assert changes == []
        await migrations.downgrade("base", database=db)
        assert changes != []
        changes.clear()
        await migrations.downgrade("base", database=db)
        assert changes == []


def note_change(changes: list[str], connection: object, cursor: object, statement: str, *rest: object) -> None:
    if statement.split()[0] in CHANGES:
        changes.append(statement)


async def test_a_database_in_memory_can_be_migrated() -> None:
    async with Database("sqlite://") as db:
        await populate(db)

        assert await migrations.current(database=db) == migrations.head()


@pytest.fixture(params=["postgresql", "mariadb"])
def account_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[URL]:
    """A database that belongs to an account with an awkward password, whose one plain part is its user's name."""
    engine = str(request.param)
    user = f"test_{secrets.token_hex(6)}"
    password = f"%40@:/%d{user[::-1]}"
    literal = f"'{password}'".replace(":", r"\:")
    try:
        with new_database(engine, tmp_path) as url:
            if engine == "postgresql":
                on_server(engine, f"CREATE ROLE {user} LOGIN PASSWORD {literal}")
                on_server(engine, f"ALTER DATABASE {url.database} OWNER TO {user}")
            else:
                for host in ("127.0.0.1", "localhost", "%"):
                    on_server(engine, f"CREATE USER {user}@'{host}' IDENTIFIED BY {literal}")
                    on_server(engine, f"GRANT ALL ON {url.database}.* TO {user}@'{host}'")
            yield url.set(username=user, password=password)
    finally:
        if engine == "postgresql":
            on_server(engine, f"DROP ROLE IF EXISTS {user}")
        else:
            on_server(engine, *(f"DROP USER IF EXISTS {user}@'{host}'" for host in ("127.0.0.1", "localhost", "%")))


def plain_part(url: URL) -> str:
    """Return what the password holds in each of its spellings."""
    return str(url.username)[::-1]


async def test_an_awkward_password_works_and_is_never_printed(account_url: URL) -> None:
    assert plain_part(account_url) in account_url.render_as_string(hide_password=False)

    code, out, err = outcome(start(account_url, "upgrade", "head"))

    assert code == 0, err
    assert plain_part(account_url) not in out + err
    async with Database(account_url) as db:
        await migrations.downgrade("base", database=db)
        await migrations.upgrade(database=db)
        assert await migrations.current(database=db) == migrations.head()


@pytest.mark.parametrize("wrong", [{"database": "no_such_database"}, {"port": 1}], ids=["database", "port"])
def test_a_command_that_can_not_connect_prints_no_password(account_url: URL, wrong: dict[str, Any]) -> None:
    code, out, err = outcome(start(account_url.set(**wrong), "upgrade", "head"))

    assert (code, out) == (1, "")
    assert re.fullmatch(r"FAILED: the database cannot be reached, or it refused the connection .*\n", err)
    assert plain_part(account_url) not in err


def test_a_percent_sign_in_a_path_is_a_percent_sign(tmp_path: Path) -> None:
    folder = tmp_path / "100%d %(here)s"
    folder.mkdir()
    url = make_url("sqlite+aiosqlite://").set(database=str(folder / "data.db"))

    alembic(url, "upgrade", "head")

    alembic(url, "check")
    assert (folder / "data.db").is_file()


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """The alembic.ini of a host application with one table of its own."""
    (tmp_path / "host" / "versions").mkdir(parents=True)
    (tmp_path / "host" / "env.py").write_text(HOST_ENV)
    (tmp_path / "host" / "versions" / "first.py").write_text(
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        "revision, down_revision = 'first', None\n"
        "def upgrade():\n"
        "    op.create_table('clinic', sa.Column('id', sa.Integer, primary_key=True))\n"
    )
    ini = tmp_path / "host.ini"
    ini.write_text("[alembic]\nscript_location = %(here)s/host\npath_separator = os\n")
    return ini


async def test_a_host_application_migrates_the_same_database(empty_url: URL, host: Path) -> None:
    alembic(empty_url, "upgrade", "head", ini=host)
    alembic(empty_url, "upgrade", "head")

    alembic(empty_url, "check", ini=host)
    alembic(empty_url, "check")
    assert await ask_once(empty_url, table_names) == {"clinic", "alembic_version", *TABLES, VERSION_TABLE}

    alembic(empty_url, "downgrade", "base")
    assert await ask_once(empty_url, table_names) == {"clinic", "alembic_version", VERSION_TABLE}
    assert "first (head)" in alembic(empty_url, "current", ini=host)


async def test_a_hosts_env_migrates_our_tables_before_its_own(empty_url: URL, host: Path) -> None:
    env = host.parent / "host" / "env.py"
    ours = """
    from sqlmodel_alembic_async import Database, migrations
    async with Database(os.environ["DATABASE_URL"]) as database:
        await migrations.upgrade(database=database)
"""
    env.write_text(HOST_ENV.replace("async def main():", f"async def main():{ours}"))

    alembic(empty_url, "upgrade", "head", ini=host)

    assert await ask_once(empty_url, table_names) == {"clinic", "alembic_version", *TABLES, VERSION_TABLE}
    assert "first (head)" in alembic(empty_url, "current", ini=host)


async def test_a_host_table_in_the_same_metadata_is_not_ours(empty_url: URL, checkout: Path) -> None:
    env = checkout.parent / "alembic" / "env.py"
    env.write_text(
        "import sqlalchemy as sa\n"
        "from sqlmodel import SQLModel\n"
        "sa.Table('visit', SQLModel.metadata, sa.Column('pet_id', sa.ForeignKey('pet.id'), primary_key=True))\n"
        + env.read_text()
    )
    async with Database(empty_url) as db:
        await migrations.upgrade(database=db)

    alembic(empty_url, "check", ini=checkout)


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
async def test_a_hosts_column_of_a_type_that_is_unknown_here_is_not_looked_at(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await migrations.upgrade(database=db)
        async with db.engine.begin() as connection:
            await connection.exec_driver_sql("CREATE TABLE clinic (place point)")

    alembic(empty_url, "check")  # A warning would be an error.


def test_a_package_in_a_folder_with_a_percent_sign_finds_its_migrations(tmp_path: Path) -> None:
    folder = tmp_path / "100%d %(here)s"
    for name in ("alembic", "sqlmodel_alembic_async"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    program = "from sqlmodel_alembic_async import migrations; print(migrations.__file__, migrations.head())"

    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )

    assert done.stdout == f"{folder}/sqlmodel_alembic_async/migrations.py {migrations.head()}\n", done.stderr


@pytest.mark.parametrize("driver", ["postgresql+asyncpg", "mysql+asyncmy", "mariadb+asyncmy"])
async def test_a_server_that_can_not_be_reached_is_unavailable(driver: str) -> None:
    async with Database(f"{driver}://somebody:sesame@127.0.0.1:1/nothing") as db:
        with pytest.raises(DatabaseUnavailableError) as upgrading:
            await migrations.upgrade(database=db)
        with pytest.raises(DatabaseUnavailableError):
            await migrations.current(database=db)

    assert "sesame" not in repr((upgrading.value, upgrading.value.__cause__))
