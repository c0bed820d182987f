"""The example in examples/, and what the page on FastAPI shows: its programs run, its tables tell what is so."""

import asyncio
import inspect
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import get_args

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database, count_users, list_pets, migrations
from sqlmodel_alembic_async.fastapi import Problem, create_router
from sqlmodel_alembic_async.fastapi.problems import _KINDS, Code

from .test_docs import FENCED, PROJECT, README, files_of
from .test_web_applications import application_of, served

PAGE = PROJECT / "docs" / "fastapi.md"
ADA = ("ada", "correct horse")

# The host's own migrations would create the table of accounts.
ADD_ACCOUNT = f"""
import asyncio
from login import *

async def main():
    await migrations.upgrade()
    async with database.engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.tables["account"].create)
    await add_account(*{ADA}, UserCreate(name="Ada"))
    await database.dispose()

asyncio.run(main())
"""


def section(title: str) -> str:
    return PAGE.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def rows(text: str) -> list[list[str]]:
    """Return the cells of the lines of tables that begin with a word of code."""
    return [cells(line) for line in text.splitlines() if line.startswith("| `")]


def write_programs(folder: Path, url: URL) -> None:
    """Write the programs of the page into a folder, and an account into the database."""
    for name in ("login.py", "admin.py"):
        (folder / name).write_text(files_of(PAGE)[name].code, encoding="utf-8")
    environment = os.environ | {"DATABASE_URL": url.render_as_string(hide_password=False)}
    subprocess.run([sys.executable, "-W", "error", "-c", ADD_ACCOUNT], cwd=folder, env=environment, check=True)


def test_the_page_shows_the_example_as_it_is() -> None:
    name = "examples/fastapi_app.py"

    assert files_of(PAGE)[name].code == f"# {name}\n" + (PROJECT / name).read_text(encoding="utf-8")


async def test_the_readmes_command_serves_the_example_on_the_file_in_its_folder(tmp_path: Path) -> None:
    [line] = re.findall(r"^pip install .* && (uvicorn .*)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert line in PAGE.read_text(encoding="utf-8")
    for folder in ("examples", "sqlmodel_alembic_async", "alembic"):
        shutil.copytree(PROJECT / folder, tmp_path / folder)
    environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "PYTHONPATH")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Port 8000 may be in use on this machine. The command stays the same.
        environment |= {"UVICORN_FD": str(listener.fileno()), "PYTHONWARNINGS": "error"}
        server = await asyncio.create_subprocess_exec(
            *line.split(), cwd=tmp_path, env=environment, pass_fds=[listener.fileno()], stderr=subprocess.PIPE
        )
        try:
            base = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=base, timeout=60) as client:
                created = await client.post("/pets", json={"name": "Rex"})
                found = await client.get(created.headers["location"])
                documentation = (await client.get("/docs")).text
                operations = (await client.get("/openapi.json")).json()["paths"]
        finally:
            server.terminate()
            log = (await asyncio.wait_for(server.communicate(), 60))[1].decode()

    assert (created.status_code, found.json()) == (201, created.json())
    assert "/openapi.json" in documentation
    assert "/pets/{pet_id}" in operations
    assert "Application shutdown complete" in log
    async with Database(f"sqlite:///{tmp_path / 'data.db'}") as db, db.reading() as session:
        assert [pet.name for pet in (await list_pets(session)).items] == ["Rex"]


async def test_endpoints_beside_the_router_store_all_or_nothing_and_answer_problems(
    empty_url: URL, tmp_path: Path
) -> None:
    registration = {"owner": {"name": "Ada", "email": "ada@example.com"}, "pets": [{"name": "Rex"}, {"name": "Max"}]}
    async with Database(empty_url) as db:
        await migrations.upgrade(database=db)
        async with served(application_of("fastapi.md", "class Registration"), tmp_path, empty_url) as client:
            registered = await client.post("/registrations", json=registration)
            again = await client.post("/registrations", json=registration)
            registration["owner"] = {"name": "Eve"}
            registration["pets"] = [{"name": "Tom", "microchip": "276098106234567"}] * 2
            half = await client.post("/registrations", json=registration)
            stray = await client.post("/api/pets", json={"name": "Stray"})
            strays = await client.get("/strays")

        async with db.reading() as session:
            pets = (await list_pets(session)).items
            assert await count_users(session) == 1

    assert (registered.status_code, stray.status_code) == (201, 201)
    assert [(pet.name, pet.owner_id) for pet in pets] == [("Max", 1), ("Rex", 1), ("Stray", None)]
    assert (again.status_code, again.json()["code"], again.json()["field"]) == (409, "already_exists", "email")
    assert (half.status_code, half.json()["field"]) == (409, "microchip")
    assert strays.json() == {"items": [stray.json()], "next": None}


async def test_the_router_asks_for_the_login_of_the_application(empty_url: URL, tmp_path: Path) -> None:
    write_programs(tmp_path, empty_url)
    async with served("from login import app", tmp_path, empty_url) as client:
        refused = [
            await client.get("/users", auth=auth)
            for auth in (None, ("ada", "wrong"), ("ada", ""), ("eve", ""), ("a\0b", "x"), ("x" * 51, "x"), ("ä", "ä"))
        ]
        unread = await client.post("/pets/import", content=b"x", headers={"content-type": "text/csv"})
        malformed = await client.post("/pets", content=b"{", headers={"content-type": "application/json"})
        added = await client.post("/pets", json={"name": "Rex", "owner_id": 1}, auth=ADA)
        me = await client.get("/me", auth=ADA)
        kept = await client.delete("/users/1?pets=release", auth=ADA)
        merged = await client.post("/users", json={"name": "Ada"}, auth=ADA)
        merged = await client.post(merged.headers["location"] + "/merge", json={"drop_id": 1}, auth=ADA)
        lists = await asyncio.gather(*(client.get("/pets", auth=ADA) for _ in range(20)))
        open_to_all = [await client.get(path) for path in ("/docs", "/openapi.json", "/health/live", "/health/ready")]

    assert {answer.status_code for answer in refused} == {401}
    assert {answer.headers["www-authenticate"] for answer in refused} == {"Basic"}
    assert (unread.status_code, malformed.status_code) == (401, 400)
    assert added.status_code == 201
    assert [pet["name"] for pet in me.json()["pets"]] == ["Rex"]
    assert (kept.status_code, kept.json()["code"]) == (409, "conflict")
    assert (merged.status_code, merged.json()["code"]) == (409, "conflict")
    assert {answer.status_code for answer in (*lists, *open_to_all)} == {200}


async def test_the_admin_page_needs_the_login_and_differs_from_the_router_as_the_page_says(
    empty_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADMIN_SECRET", "secret")
    write_programs(tmp_path, empty_url)
    async with served("from admin import app", tmp_path, empty_url) as client:
        closed = await client.post("/admin/user/create", data={"name": "Eve"})
        wrong = await client.post("/admin/login", data={"username": ADA[0], "password": "wrong"})
        await client.post("/admin/login", data=dict(zip(("username", "password"), ADA, strict=True)))
        added = await client.post("/admin/pet/create", data={"name": " Rex ", "species": "Dog", "color": ""})
        rex = await client.get("/pets/1", auth=ADA)
        form = await client.get("/admin/pet/edit/1")
        await client.patch("/pets/1", json={"color": "brown"}, auth=ADA)
        late = await client.post("/admin/pet/edit/1", data={"name": "Max", "species": "dog", "color": ""})
        max_ = await client.get("/pets/1", auth=ADA)
        invalid = await client.post("/admin/pet/create", data={"name": "Tom", "weight_g": "0"})
        user = {"name": "Bob", "email": "bob@example.com"}
        twins = [await client.post("/admin/user/create", data=user) for _ in range(2)]
        await client.post("/pets/1/archive", auth=ADA)
        archived = await client.get("/admin/pet/list")
        await client.get("/admin/logout")
        ended = await client.get("/admin/user/list")

    assert closed.headers["location"].endswith("/admin/login")
    assert wrong.status_code == 400
    assert (added.status_code, form.status_code, late.status_code) == (302, 200, 302)
    assert (rex.json()["name"], rex.json()["species"], rex.json()["version"]) == ("Rex", "dog", 1)
    assert (max_.json()["name"], max_.json()["color"], max_.json()["version"]) == ("Max", None, 3)
    assert (invalid.status_code, "greater than or equal to 1" in invalid.text) == (400, True)
    assert [answer.status_code for answer in twins] == [302, 400]
    assert "INSERT INTO" in twins[1].text
    assert "bob@example.com" not in twins[1].text.partition("INSERT INTO")[2].partition("</div>")[0]
    assert "Max" in archived.text
    assert ended.headers["location"].endswith("/admin/login")


def test_the_page_explains_every_code_with_its_status() -> None:
    table = {row[0].strip("`"): row for row in rows(section("Problems")) if len(row) == 4 and row[1] != "Status"}
    statuses = {code: {int(status) for status in row[1].split(", ")} for code, row in table.items()}

    assert sorted(table) == sorted(get_args(Code))
    assert {(status, code) for status, code in _KINDS.values() if status not in statuses[code]} == set()


def test_the_page_explains_every_member_of_a_problem() -> None:
    members = [row[0] for row in rows(section("Problems")) if len(row) == 2]

    assert re.findall(r"`(\w+)`", " ".join(members)) == list(Problem.model_fields)


def test_the_page_names_every_endpoint() -> None:
    app = FastAPI()
    app.include_router(create_router())
    there = {f"{method.upper()} {path}" for path, methods in app.openapi()["paths"].items() for method in methods}
    named = {name for row in rows(section("The endpoints")) for name in re.findall(r"`([A-Z]+ /[^`]*)`", row[0])}

    assert named == there


@pytest.mark.parametrize("row", rows(section("The endpoints")), ids=lambda row: row[0])
def test_the_page_names_the_statuses_that_an_endpoint_documents(row: list[str]) -> None:
    app = FastAPI()
    app.include_router(create_router())
    always = {"400", "422", "500", "503", "413"}  # The paragraph after the table has them.
    shown = set(re.findall(r"\b[2-5]\d\d\b", " ".join(row[1:]))) - always
    for name in re.findall(r"`([A-Z]+ /[^`]*)`", row[0]):
        method, path = name.lower().split()

        assert set(app.openapi()["paths"][path][method]["responses"]) - always == shown


def test_the_page_explains_every_argument_of_the_router() -> None:
    arguments = {row[0].strip("`"): row[2].strip("`") for row in rows(section("A whole application"))}
    parameters = inspect.signature(create_router).parameters

    assert list(arguments) == list(parameters)
    assert arguments["require_if_match"] == str(parameters["require_if_match"].default)
    assert arguments["max_import_bytes"] == f"{parameters['max_import_bytes'].default:,}"


def test_every_command_of_the_page_names_an_endpoint() -> None:
    app = FastAPI()
    app.include_router(create_router())
    commands = "".join(
        block["body"] for block in FENCED.finditer(PAGE.read_text(encoding="utf-8")) if block["language"] == "sh"
    )
    paths = re.findall(r"localhost:8000(/[\w/]+)", commands)

    assert len(paths) >= 6
    assert {path for path in paths if path not in app.openapi()["paths"]} == set()
