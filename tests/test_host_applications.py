"""Applications that have tables of their own beside those of this package."""

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from sqlalchemy.engine import URL

from .servers import new_database

NAMESAKES = """
from sqlmodel import Field, SQLModel

class User(SQLModel, table=True):
    __tablename__ = "account"
    id: int | None = Field(default=None, primary_key=True)

class Pet(SQLModel, table=True):
    __tablename__ = "stuffed_animal"
    id: int | None = Field(default=None, primary_key=True)
    user_id: int | None = Field(default=None, foreign_key="user.id")
"""
OURS = "from sqlmodel_alembic_async import *\n"
SERVICES = """
import asyncio
import sys

async def main():
    async with Database(sys.argv[1]) as db:
        await db.create_tables()
        async with db.transaction() as session:
            ada = await create_user(session, UserCreate(name="Ada"))
            rex = await create_pet(session, PetCreate(name="Rex", owner_id=ada.id))
            await session.refresh(rex, ["owner"])
            print(rex.owner.name, (await get_user(session, ada.id, with_pets=True)).pets)

asyncio.run(main())
"""

# A table `user` of the application, in a schema of its own, refers to a pet of this package.
OTHER_SCHEMA = """
import asyncio
import sys
from sqlmodel import Field, SQLModel, select
from sqlmodel_alembic_async import Database, Pet, PetCreate, create_pet, list_pets, migrations
from sqlmodel_alembic_async import User as PetOwner

class User(SQLModel, table=True):
    __table_args__ = {"schema": "app"}
    id: int | None = Field(default=None, primary_key=True)
    login: str
    pet_id: int | None = Field(default=None, foreign_key="pet.id")

async def main():
    async with Database(sys.argv[1]) as db:
        await migrations.upgrade(database=db)
        async with db.engine.begin() as connection:
            await connection.exec_driver_sql("CREATE SCHEMA app")
            await connection.run_sync(SQLModel.metadata.create_all, tables=[SQLModel.metadata.tables["app.user"]])
        async with db.transaction() as session:
            rex = await create_pet(session, PetCreate(name="Rex"))
            session.add_all([User(login="ada", pet_id=rex.id), PetOwner(name="Ada")])
        async with db.reading() as session:
            found = await session.exec(select(User.login, Pet.name).join(Pet, Pet.id == User.pet_id))
            print(*found.one(), *await session.exec(select(PetOwner.name)))

asyncio.run(main())
"""

# The tables of this package are in another schema, and the application's engine knows nothing of that.
TRANSLATED_SCHEMA = """
import asyncio
import sys
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlmodel_alembic_async import Database, PetCreate, UserCreate, create_pet, create_user, list_pets, migrations

class Base(DeclarativeBase):
    pass

class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    login: Mapped[str]

async def main():
    engine = create_async_engine(sys.argv[1])
    async with engine.begin() as connection:
        await connection.exec_driver_sql("CREATE SCHEMA pets")
        await connection.run_sync(Base.metadata.create_all)
    async with Database(sys.argv[1], execution_options={"schema_translate_map": {None: "pets"}}) as db:
        await migrations.upgrade(database=db)
        async with db.transaction() as session:
            ada = await create_user(session, UserCreate(name="Ada"))
            await create_pet(session, PetCreate(name="Rex", owner_id=ada.id))
        async with db.reading() as session:
            names = [pet.name for pet in (await list_pets(session)).items]
        assert await migrations.current(database=db) == migrations.head()
    async with AsyncSession(engine) as session:
        session.add(User(login="ada"))
        await session.commit()
        print(*names, *await session.scalars(sa.select(User.login)))
    async with engine.connect() as connection:
        for schema in ("public", "pets"):
            print(sorted(await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names(schema))))
    await engine.dispose()

asyncio.run(main())
"""


def printed_by(program: str, url: URL) -> str:
    """Run a program in a process of its own: a class of the application stays in SQLAlchemy's registry."""
    command = [sys.executable, "-W", "error", "-c", dedent(program), url.render_as_string(hide_password=False)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("imports", [NAMESAKES + OURS, OURS + NAMESAKES], ids=["before", "after"])
def test_an_application_may_have_classes_named_user_and_pet(imports: str, tmp_path: Path) -> None:
    names = "Database, PetCreate, UserCreate, create_pet, create_user, get_user"
    imports = imports.replace("*", names)

    with new_database("sqlite", tmp_path) as url:
        assert printed_by(imports + SERVICES, url) == "Ada [Pet(id=1, name='Rex', owner_id=1)]\n"


def test_an_application_may_have_a_table_named_user_in_another_schema(tmp_path: Path) -> None:
    with new_database("postgresql", tmp_path) as url:
        assert printed_by(OTHER_SCHEMA, url) == "ada Rex Ada\n"


def test_our_tables_may_be_in_a_schema_that_an_application_leaves_to_them(tmp_path: Path) -> None:
    with new_database("postgresql", tmp_path) as url:
        assert printed_by(TRANSLATED_SCHEMA, url) == (
            "Rex ada\n['user']\n['pet', 'sqlmodel_alembic_async_version', 'user']\n"
        )
