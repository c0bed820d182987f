"""FastAPI applications: the examples of the pages under uvicorn, and the shapes as the bodies of requests."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database, PetCreate, count_users, create_pet, get_user, migrations

from .fastapi.serving import served
from .test_docs import EXAMPLES, PROJECT, examples_of, text_of

PACKAGE = PROJECT / "sqlmodel_alembic_async"

# A commit takes as long as on a slow disk, so that what happens before it is seen.
MORE_ROUTES = """
import time
from sqlmodel_alembic_async import User, UserCreate, UserPublic, create_user
from sqlalchemy import event
from sqlalchemy.orm import Session as SyncSession

event.listen(SyncSession, "before_commit", lambda session: time.sleep(0.02))

@app.post("/users", status_code=201, response_model=UserPublic)
async def add_user(data: UserCreate, session: SessionDependency) -> User:
    return await create_user(session, data)

@app.post("/rows", status_code=201)
async def add_row(data: UserCreate, session: SessionDependency) -> str:
    session.add(User(**data.model_dump()))
    return "added"
"""

SHAPES = """
import asyncio
from typing import Annotated
import httpx
from fastapi import Body, FastAPI, Query
from sqlmodel_alembic_async import Page, Pet, PetCreate, PetUpdate, User, UserCreate, UserUpdate

app = FastAPI()

@app.post("/users")
async def add_user(data: UserCreate) -> User:
    return User(**data.model_dump())

@app.post("/pets")
async def add_pet(data: Annotated[PetCreate, Body(embed=True)], owner: UserUpdate) -> Pet:
    return Pet(**data.model_dump())

@app.patch("/pets")
async def change_pets(data: list[PetUpdate] | None = None) -> Page[Pet]:
    return Page([], None)

@app.post("/rows")
async def add_row(data: User, pet: Pet) -> list[UserCreate]:
    return []

@app.get("/users")
async def find(data: Annotated[UserUpdate, Query()]) -> PetCreate:
    return PetCreate(name=data.name)

async def main():
    ada, rex = {"name": "Ada"}, {"name": "Rex", "species": "Dog"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        requests = [
            client.post("/users", json=ada | {"email": "ADA@example.com"}),
            client.post("/users", json=ada | {"version": 7}),
            client.post("/pets", json={"data": rex, "owner": ada}),
            client.patch("/pets", json=[rex]),
            client.post("/rows", json={"data": ada, "pet": rex}),
            client.get("/users", params=ada),
            client.get("/openapi.json"),
        ]
        print(*[(await request).status_code for request in requests])

asyncio.run(main())
"""


def application_of(page: str, text: str) -> str:
    """Return the application of a page of docs/ whose code has this text."""
    return next(example.code for example in examples_of(PROJECT / "docs" / page) if text in example.code)


def test_every_page_asks_for_the_scope_that_commits_before_the_response() -> None:
    uses = re.findall(r"Depends\(get_session.*?\)", text_of([*EXAMPLES, *PACKAGE.rglob("*.py")]))

    assert len(uses) >= 2
    assert set(uses) == {'Depends(get_session, scope="function")'}


async def test_what_the_pages_application_answers_with_201_is_stored(empty_url: URL, tmp_path: Path) -> None:
    async with Database(empty_url) as db:
        await migrations.upgrade(database=db)
        code = application_of("transactions.md", "install_error_handlers") + MORE_ROUTES
        async with served(code, tmp_path, empty_url) as client:

            async def add(number: int) -> None:
                answer = await client.post("/users", json={"name": "Ada", "email": f"{number}@example.com"})
                assert answer.status_code == 201
                assert "name_key" not in answer.json()
                async with db.reading() as session:
                    assert (await get_user(session, answer.json()["id"])).email == f"{number}@example.com"

            await asyncio.gather(*(add(number) for number in range(100)))

            for path in ("/users", "/rows"):  # By a service, and by session.add().
                answer = await client.post(path, json={"name": "Eve", "email": "7@EXAMPLE.com"})
                assert (answer.status_code, answer.json()["code"]) == (409, "already_exists")
            assert (await client.post("/rows", json={"name": "Eve"})).status_code == 201
        async with db.reading() as session:
            assert await count_users(session) == 101


async def test_the_pages_application_reads_without_waiting_for_a_writer(empty_url: URL, tmp_path: Path) -> None:
    async with Database(empty_url) as db:
        await migrations.upgrade(database=db)
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Rex", species="dog"))
        code = application_of("transactions.md", "install_error_handlers")
        async with served(code, tmp_path, empty_url) as client, db.transaction() as session:
            await create_pet(session, PetCreate(name="Max", species="dog"))

            answer = await client.get("/pets", params={"species": "Dog"}, timeout=30)

    assert [pet["name"] for pet in answer.json()] == ["Rex"]


@pytest.mark.parametrize(
    "body", ['{"name": "\\ud800"}', '{"\\ud800": 1}', '{"name": "Ada", "city": NaN}', "", "[1e999]"]
)
async def test_the_pages_handlers_answer_every_invalid_value(body: str, empty_url: URL, tmp_path: Path) -> None:
    routes = """
@app.post("/users")
async def add(data: UserCreate) -> None: ...

@app.get("/pets")
async def find(species: str, session: ReadingDependency) -> None:
    await list_pets(session, species=species)
"""
    async with Database(empty_url) as db:
        await migrations.upgrade(database=db)
    async with served(application_of("fastapi.md", "RequestValidationError") + routes, tmp_path, empty_url) as client:
        refused = await client.post("/users", content=body, headers={"content-type": "application/json"})
        blank = await client.get("/pets", params={"species": ""})

    assert (refused.status_code, blank.status_code) == (422, 422)
    assert all(each.keys() == {"loc", "msg"} for each in refused.json()["detail"])
    assert (blank.json()["code"], blank.json()["field"]) == ("invalid_request", "species")


def test_a_shape_as_the_body_of_a_request_makes_pydantic_warn_of_nothing() -> None:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", SHAPES], capture_output=True, text=True, timeout=120
    )

    assert (finished.stdout, finished.stderr) == ("200 422 200 200 200 200 200\n", "")


@pytest.mark.parametrize("name", ["UserCreate", "UserUpdate", "PetCreate", "PetUpdate", "User", "Pet"])
def test_what_the_import_does_not_need_is_not_built_by_it(name: str) -> None:
    program = f"import sqlmodel_alembic_async as p; print(p.{name}.__pydantic_complete__)"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert finished.stdout == "False\n"
