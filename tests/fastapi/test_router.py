import subprocess
import sys
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database, database, migrations
from sqlmodel_alembic_async.fastapi import create_router

from .conftest import application, client_of, created


async def test_a_prefix_is_part_of_every_path(db: Database) -> None:
    app = application(db, prefix="/api")
    async with client_of(app) as client:
        answer = await client.post("/api/users", json={"name": "Ada"})

    assert answer.headers["location"] == f"/api/users/{answer.json()['id']}"
    assert all(path.startswith("/api/") for path in app.openapi()["paths"])


def test_the_routes_are_on_one_level_and_the_short_paths_come_first() -> None:
    routes = create_router(Database("sqlite://")).routes
    lengths = [len(route.path.split("/")) for route in routes if isinstance(route, APIRoute)]

    assert len(lengths) == len(routes) > 25
    assert lengths == sorted(lengths)


async def test_addresses_hold_behind_a_proxy_that_removes_a_part_of_the_path(db: Database) -> None:
    transport = httpx.ASGITransport(application(db), root_path="/registry")
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for name in ("Rex", "Tom"):
            answer = await client.post("/registry/pets", json={"name": name})
        page = await client.get("/registry/pets", params={"limit": 1})

    assert answer.headers["location"] == f"/registry/pets/{answer.json()['id']}"
    assert page.links["next"]["url"].startswith("/registry/pets?")


async def test_the_dependencies_of_the_application_guard_everything_but_the_health_checks(db: Database) -> None:
    def check(token: str | None = Header(default=None)) -> None:
        if token != "let me in":
            raise HTTPException(401, {"say": "please"})

    app = application(db, dependencies=[Depends(check)])
    async with client_of(app) as client:
        refused = [
            await client.request(method.upper(), path.replace("{", "").replace("}", ""))
            for path, operations in app.openapi()["paths"].items()
            for method in operations
            if "/health/" not in path
        ]
        admitted = await client.get("/users", headers={"token": "let me in"})
        live = await client.get("/health/live")

    assert {answer.status_code for answer in refused} == {401}
    assert refused[0].json() == {"detail": {"say": "please"}}  # The application's own form.
    assert (admitted.status_code, live.status_code) == (200, 200)


def test_tags_are_those_of_the_rows_or_of_the_application(db: Database) -> None:
    def tags(app: FastAPI) -> set[str]:
        operations = [each for path in app.openapi()["paths"].values() for each in path.values()]
        return {tag for operation in operations for tag in operation["tags"]}

    assert tags(application(db)) == {"users", "pets", "health"}
    assert tags(application(db, tags=["registry"])) == {"registry"}


async def test_two_databases_have_two_routers(db: Database, empty_url: URL) -> None:
    async with Database(empty_url) as other:
        await migrations.upgrade(database=other)
        app = FastAPI()
        app.include_router(create_router(db, prefix="/first"))
        app.include_router(create_router(other, prefix="/second"), include_in_schema=False)
        async with client_of(app) as client:
            await created(client, "/second/pets", name="Rex")
            found = [len((await client.get(f"/{name}/pets")).json()["items"]) for name in ("first", "second")]

    assert found == [0, 1]
    assert all(path.startswith("/first") for path in app.openapi()["paths"])


async def test_the_default_database_serves_a_router_without_arguments(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(database.__dict__, "_reader", db._reader)
    app = FastAPI()
    app.include_router(create_router())
    async with client_of(app) as client:
        assert (await client.get("/pets")).json() == {"items": [], "next": None}


def test_the_router_needs_no_change_of_the_application(client: httpx.AsyncClient) -> None:
    app = FastAPI()
    before = dict(app.exception_handlers)

    app.include_router(create_router())

    assert dict(app.exception_handlers) == before


def test_the_default_response_class_of_the_application_is_not_that_of_the_router(db: Database) -> None:
    def documented(app: FastAPI) -> dict[str, Any]:
        app.include_router(create_router(db))
        return app.openapi()["paths"]

    assert documented(FastAPI(default_response_class=PlainTextResponse)) == documented(FastAPI())


def test_a_missing_fastapi_names_the_extra() -> None:
    program = (
        "import sys, importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'fastapi' else find(name, *rest)\n"
        "import sqlmodel_alembic_async.fastapi"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    message = "ModuleNotFoundError: FastAPI is not installed: run pip install 'sqlmodel-alembic-async[fastapi]'"
    assert finished.stderr.splitlines()[-1] == message
