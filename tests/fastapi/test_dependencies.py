from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import FastAPI

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    PetCreate,
    StorageError,
    User,
    UserCreate,
    count_users,
    create_pet,
    create_user,
    database,
    get_session,
)
from sqlmodel_alembic_async.fastapi import (
    ReadingDependency,
    SessionDependency,
    install_error_handlers,
    reading_dependency,
    session_dependency,
)
from sqlmodel_alembic_async.fastapi.dependencies import get_reading_session

from .conftest import client_of, problem_of


async def test_the_commit_is_before_the_response(db: Database) -> None:
    app = FastAPI()
    install_error_handlers(app)

    @app.post("/users", status_code=201)
    async def add(data: UserCreate, session: Annotated[AsyncSession, session_dependency(db)]) -> str:
        session.add(User(**data.model_dump()))  # It is written at the COMMIT.
        return "added"

    async with client_of(app) as client:
        first = await client.post("/users", json={"name": "Ada", "email": "ada@example.com"})
        taken = await client.post("/users", json={"name": "Eve", "email": "ada@example.com"})

    assert first.status_code == 201
    assert problem_of(taken) == (409, "already_exists", "email")
    async with db.reading() as session:
        assert await count_users(session) == 1


async def test_an_error_of_the_endpoint_rolls_back(db: Database) -> None:
    app = FastAPI()

    @app.post("/users")
    async def add(session: Annotated[AsyncSession, session_dependency(db)]) -> None:
        await create_user(session, UserCreate(name="Ada"))
        raise LookupError("the endpoint failed")

    async with client_of(app) as client:
        with pytest.raises(LookupError, match="the endpoint failed"):
            await client.post("/users")

    async with db.reading() as session:
        assert await count_users(session) == 0


async def test_a_reading_session_waits_for_no_writer_and_writes_nothing(db: Database) -> None:
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/users")
    async def count(session: Annotated[AsyncSession, reading_dependency(db)]) -> int:
        return await count_users(session)

    @app.post("/pets")
    async def add(session: Annotated[AsyncSession, reading_dependency(db)]) -> None:
        with pytest.raises(StorageError):
            await create_pet(session, PetCreate(name="Rex"))
        raise StorageError("read-only")

    async with client_of(app) as client, db.transaction():
        assert (await client.get("/users", timeout=20)).json() == 0
        assert problem_of(await client.post("/pets")) == (500, "storage_error", None)


async def test_tests_may_override_both_plain_dependencies(db: Database) -> None:
    app = FastAPI()

    @app.post("/users")
    async def add(session: SessionDependency) -> int:
        return (await create_user(session, UserCreate(name="Ada"))).id

    @app.get("/users")
    async def count(session: ReadingDependency) -> int:
        return await count_users(session)

    async def get_test_session() -> AsyncIterator[AsyncSession]:
        async with db.transaction() as session:
            yield session

    app.dependency_overrides = {get_session: get_test_session, get_reading_session: get_test_session}
    async with client_of(app) as client:
        await client.post("/users")
        assert (await client.get("/users")).json() == 1


async def test_the_plain_dependencies_are_those_of_the_default_database() -> None:
    app = FastAPI()

    @app.get("/writer")
    async def writer(session: SessionDependency) -> bool:
        return session.bind is database._writer

    @app.get("/reader")
    async def reader(session: ReadingDependency) -> bool:
        return session.bind is database._reader

    async with client_of(app) as client:
        assert [(await client.get(path)).json() for path in ("/writer", "/reader")] == [True, True]
    await database.dispose()
