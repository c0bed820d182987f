"""The migrations of an application that has tables of its own in the same database."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.engine import URL
from sqlmodel import SQLModel

from sqlmodel_alembic_async import Database, migrations
from sqlmodel_alembic_async.models import TABLES

from .migrating import VERSION_TABLE, ask, ask_once, on_postgresql, table_names
from .test_docs import FENCED, PROJECT, files_of

PAGE = PROJECT / "docs" / "your-own-tables.md"
HOST_TABLES = {"visit", "pet_extra"}


class Project:
    """A folder in which the commands of the page run."""

    def __init__(self, folder: Path, url: URL) -> None:
        self.folder = folder
        self._environment = os.environ | {
            "DATABASE_URL": url.render_as_string(hide_password=False),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH")))),
            "PYTHONWARNINGS": "error",
        }

    def run(self, command: str) -> str:
        """Run a command that must succeed, and return what it prints."""
        finished = subprocess.run(
            ["bash", "-ec", command],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.folder / name).write_text(text, encoding="utf-8")

    def revision(self) -> str:
        """Return the text of the only revision."""
        [path] = (self.folder / "alembic" / "versions").glob("*.py")
        return path.read_text(encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path, empty_url: URL) -> Project:
    """The project of the page, with everything but the data."""
    folder = tmp_path / "project"
    folder.mkdir()
    project = Project(folder, empty_url)
    before, after = (
        [line for line in block["body"].splitlines() if not line.startswith("export ")]
        for block in FENCED.finditer(PAGE.read_text(encoding="utf-8"))
        if block["language"] == "sh"
    )
    project.run("\n".join(before))
    files = files_of(PAGE) | {"alembic/env.py": files_of(PROJECT / "docs" / "migrations.md")["alembic/env.py"]}
    project.write({name: example.code for name, example in files.items() if name != "accounts.py"})
    project.run("\n".join(after))
    return project


async def test_the_program_of_the_page_runs_on_tables_that_its_own_revision_made(
    project: Project, empty_url: URL
) -> None:
    assert project.run("python main.py") == files_of(PAGE)["main.py"].output
    assert await ask_once(empty_url, table_names) == {*HOST_TABLES, "alembic_version", *TABLES, VERSION_TABLE}
    revision = project.revision()
    assert revision.count("op.create_table(") == revision.count("op.drop_table(") == len(HOST_TABLES)
    assert "op.create_table('visit'" in revision
    assert "columns.UTCDateTime(" in revision  # And it has run.
    assert not any(name in revision for name in ("'user'", "'pet'", VERSION_TABLE, "name_key"))


async def test_later_revisions_and_downgrades_of_the_application_leave_our_tables(
    project: Project, empty_url: URL
) -> None:
    models = project.folder / "models.py"
    models.write_text(models.read_text().replace("tattoo: str", "color: str"))

    project.run("alembic revision --autogenerate -m second --rev-id second && alembic upgrade head && alembic check")

    second = (project.folder / "alembic" / "versions" / "second_second.py").read_text()
    assert second.count("batch_alter_table") == 2
    assert not any(name in second for name in ("'user'", "'pet'", VERSION_TABLE))
    project.run("alembic downgrade base")
    assert await ask_once(empty_url, table_names) == {"alembic_version", *TABLES, VERSION_TABLE}
    project.run("alembic upgrade head && alembic check")


async def test_printing_the_applications_sql_changes_nothing(project: Project, empty_url: URL) -> None:
    project.run("alembic downgrade base")
    async with Database(empty_url) as db:
        await migrations.downgrade("base", database=db)

    printed = project.run("alembic upgrade head --sql")

    assert "CREATE TABLE visit" in printed
    assert await ask_once(empty_url, table_names) == {"alembic_version", VERSION_TABLE}


async def test_an_index_of_a_foreign_key_is_dropped_with_its_table_as_the_page_says(
    project: Project, empty_url: URL
) -> None:
    project.run("alembic downgrade base && rm alembic/versions/*.py")
    models = project.folder / "models.py"
    models.write_text(models.read_text().replace('ondelete="CASCADE")', 'ondelete="CASCADE", index=True)', 1))
    project.run("alembic revision --autogenerate -m indexed")
    [revision] = (project.folder / "alembic" / "versions").glob("*.py")
    kept, removed = re.subn(r"    with op.batch_alter_table.*\n.*drop_index.*\n", "", revision.read_text())
    assert removed == 1
    revision.write_text(kept)

    project.run("alembic upgrade head && alembic check && alembic downgrade base")

    assert await ask_once(empty_url, table_names) == {"alembic_version", *TABLES, VERSION_TABLE}
    project.run("alembic upgrade head && alembic check")


def differences(metadata: sa.MetaData, **options: Any) -> Callable[[sa.Connection], list[tuple[str, str]]]:
    """Return a function that tells what an application's autogenerate would write."""
    filters = {"include_name": migrations.include_name, "include_object": migrations.include_object}

    def compared(connection: sa.Connection) -> list[tuple[str, str]]:
        found = compare_metadata(MigrationContext.configure(connection, opts=filters | options), metadata)
        return sorted((kind, str(item)) for kind, item, *_ in found)

    return compared


def host_metadata(*, ours: bool) -> sa.MetaData:
    """Return the metadata of an application, with or without copies of our tables."""
    metadata = sa.MetaData()
    if ours:
        for name in TABLES:
            SQLModel.metadata.tables[name].to_metadata(metadata)
    else:
        sa.Table("pet", metadata, sa.Column("id", sa.Integer, primary_key=True))  # What a foreign key needs.
    sa.Table("visit", metadata, sa.Column("pet_id", sa.ForeignKey("pet.id")))
    return metadata


@pytest.mark.parametrize("ours", [True, False])
async def test_our_tables_are_neither_created_nor_dropped(empty_url: URL, ours: bool) -> None:
    metadata = host_metadata(ours=ours)
    async with Database(empty_url) as db:
        before = await ask(db, differences(metadata))
        await migrations.upgrade(database=db)

        assert before == await ask(db, differences(metadata)) == [("add_table", "visit")]


async def test_an_index_or_column_that_only_the_database_has_stays_ours(db: Database) -> None:
    metadata = host_metadata(ours=True)
    pet = metadata.tables["pet"]
    for index in list(pet.indexes):
        pet.indexes.remove(index)
    pet.append_column(sa.Column("tattoo", sa.Integer))

    assert await ask(db, differences(metadata)) == [("add_table", "visit")]


@pytest.mark.parametrize(
    ("type_", "item"),
    [
        ("table", "pet"),
        ("column", "pet.c.name"),
        ("index", "ix_pet_species"),
        ("unique_constraint", "uq_pet_microchip"),
        ("foreign_key_constraint", "fk_pet_owner_id_user"),
        ("check_constraint", "ck_pet_sex"),
    ],
)
def test_what_belongs_to_our_tables_is_left_out(type_: str, item: str) -> None:
    pet = SQLModel.metadata.tables["pet"]
    items = {str(each.name): each for each in (*pet.indexes, *pet.constraints)} | {"pet": pet, "pet.c.name": pet.c.name}
    name = item.rpartition(".")[2]

    assert not migrations.include_object(items[item], name, type_, False, None)
    parents = {"schema_name": None} | ({} if type_ == "table" else {"table_name": "pet"})
    assert not migrations.include_name(name, type_, parents)


def test_what_belongs_to_a_table_of_the_application_is_included() -> None:
    visit = host_metadata(ours=True).tables["visit"]

    assert migrations.include_object(visit, "visit", "table", False, None)
    assert migrations.include_object(visit.c.pet_id, "pet_id", "column", False, None)
    assert migrations.include_object(next(iter(visit.foreign_key_constraints)), None, "foreign_key_constraint", True, 0)
    assert migrations.include_name("visit", "table", {"schema_name": None})
    assert migrations.include_name("user", "column", {"schema_name": None, "table_name": "visit"})
    assert migrations.include_name(None, "schema", {})
    assert migrations.include_name("pet", "schema", {})


@pytest.fixture
def schema(empty_url: URL) -> str:
    async def create(name: str) -> str:
        async with Database(empty_url) as db, db.engine.begin() as connection:
            await connection.execute(sa.schema.CreateSchema(name))
        return name

    return asyncio.run(create("another"))


@on_postgresql
async def test_a_table_user_of_the_application_in_another_schema_is_its_own(empty_url: URL, schema: str) -> None:
    metadata = host_metadata(ours=True)
    user = sa.Table("user", metadata, sa.Column("id", sa.Integer, primary_key=True), schema=schema)
    expected = [("add_table", "visit"), ("add_table", f"{schema}.user")]
    async with Database(empty_url) as db:
        await migrations.upgrade(database=db)

        assert sorted(await ask(db, differences(metadata, include_schemas=True))) == sorted(expected)
        async with db.engine.begin() as connection:
            await connection.run_sync(user.create)
        assert await ask(db, differences(metadata, include_schemas=True)) == [("add_table", "visit")]
        metadata.remove(user)
        found = await ask(db, differences(metadata, include_schemas=True))
        assert found == [("add_table", "visit"), ("remove_table", f"{schema}.user")]


@on_postgresql
async def test_our_tables_in_a_schema_of_their_own_are_left_alone(empty_url: URL, schema: str) -> None:
    metadata = sa.MetaData()
    sa.Table("visit", metadata, sa.Column("id", sa.Integer, primary_key=True))
    async with Database(empty_url, execution_options={"schema_translate_map": {None: schema}}) as ours:
        await migrations.upgrade(database=ours)
    async with Database(empty_url) as db:
        names = await ask(db, lambda connection: sa.inspect(connection).get_table_names(schema))
        assert {*names} == {*TABLES, VERSION_TABLE}

        assert await ask(db, differences(metadata, include_schemas=True)) == [("add_table", "visit")]
