"""The router under uvicorn, with one and with four workers: commits, concurrent clients, lost clients, the end."""

import asyncio
import json
import signal
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import (
    Database,
    PetCreate,
    UserCreate,
    count_pets,
    count_users,
    create_pet,
    create_pets,
    create_user,
    get_user,
    list_pets,
    list_users,
)

from ..stress.measures import becomes_true
from .serving import ROUTER, Server, serving

# Each request may name in a header how its COMMIT fails.
FAILING_COMMITS = (
    ROUTER
    + """
from contextvars import ContextVar
from fastapi import Depends, Request
from sqlalchemy import event
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only
from sqlmodel_alembic_async import User, UserCreate
from sqlmodel_alembic_async.fastapi import SessionDependency, install_error_handlers

another = Database()
failure = ContextVar("failure", default=None)
commands = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
    "mysql": ("SELECT connection_id()", "KILL {}"),
}

async def note(request: Request):
    failure.set(request.headers.get("fails-by"))

async def run(statement):
    async with another.engine.connect() as connection:
        await connection.exec_driver_sql(statement)

@event.listens_for(Session, "before_commit")
def fail(session):
    if session.in_nested_transaction():
        return
    connection = session.connection()
    if failure.get() == "a deferred constraint":
        connection.exec_driver_sql("INSERT INTO host_row VALUES (-1)")
    elif failure.get() == "a lost connection":
        ask, kill = commands[connection.dialect.name]
        await_only(run(kill.format(connection.exec_driver_sql(ask).scalar_one())))

app = FastAPI(dependencies=[Depends(note)])
app.include_router(create_router(database))
install_error_handlers(app)

@app.post("/rows", status_code=201)
async def add_row(data: UserCreate, session: SessionDependency) -> str:
    session.add(User(**data.model_dump()))
    return "added"
"""
)

# It tells what a lost client must not keep.
RESOURCES = (
    ROUTER
    + """
import contextlib, os

@app.get("/resources")
async def resources() -> dict[str, int]:
    engines = (database.engine, database._writer, database._reader, database._snapshot)
    lent = sum(pool.checkedout() for pool in {engine.sync_engine.pool for engine in engines})
    return {"connections": lent, "files": sum(map(is_temporary, os.listdir("/proc/self/fd")))}

def is_temporary(descriptor):
    with contextlib.suppress(FileNotFoundError):  # The descriptor of the list itself.
        return "(deleted)" in os.readlink(f"/proc/self/fd/{descriptor}")
    return False
"""
)

# A commit takes a while, and the test sees how many requests wait for one.
SLOW_COMMITS = (
    ROUTER
    + """
import asyncio, os
from fastapi import Depends
from sqlalchemy import event
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

arrivals = os.open("arrivals", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

async def note():
    os.write(arrivals, b".")

event.listen(Session, "before_commit", lambda session: await_only(asyncio.sleep(0.1)))
app = FastAPI(dependencies=[Depends(note)])
app.include_router(create_router(database))
"""
)

FAILURES = {
    "sqlite": ["a deferred constraint"],
    "postgresql": ["a deferred constraint", "a lost connection"],
    "mariadb": ["a lost connection"],
}
DEFERRED = "CREATE TABLE host_row (user_id integer REFERENCES {} (id) DEFERRABLE INITIALLY DEFERRED)"


@pytest.fixture(scope="module", params=[1, 4], ids=["1 worker", "4 workers"])
def workers(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def server(migrated_url: URL, workers: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(ROUTER, tmp_path_factory.mktemp("server"), migrated_url, workers=workers) as server:
        yield server
        assert "ERROR" not in server.log, server.log


@pytest.fixture
async def client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client() as client:
        yield client


async def rows(db: Database) -> list[dict[str, Any]]:
    async with db.reading() as session:
        users = await list_users(session, archived=None, limit=1000)
        pets = await list_pets(session, archived=None, limit=1000)
        return [row.model_dump() for row in [*users.items, *pets.items]]


async def test_no_failing_commit_is_answered_with_success(
    db: Database, engine_name: str, workers: int, tmp_path: Path
) -> None:
    async with db.transaction() as session:
        ada = await create_user(session, UserCreate(name="Ada"))
        bob = await create_user(session, UserCreate(name="Bob"))
        rex = await create_pet(session, PetCreate(name="Rex", owner_id=ada.id))
        max_ = await create_pet(session, PetCreate(name="Max"))
    table = db.engine.dialect.identifier_preparer.quote("user")
    if engine_name != "mariadb":
        async with db.engine.begin() as connection:
            await connection.exec_driver_sql(DEFERRED.format(table))
    before = await rows(db)
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/rows", {"json": {"name": "Eve"}}),
        ("POST", "/users", {"json": {"name": "Eve", "email": "eve@example.com"}}),
        ("PATCH", f"/users/{ada.id}", {"json": {"city": "Oslo"}, "headers": {"if-match": '"1"'}}),
        ("POST", f"/users/{ada.id}/archive", {}),
        ("POST", f"/users/{ada.id}/anonymise", {}),
        ("POST", f"/users/{ada.id}/merge", {"json": {"drop_id": bob.id}}),
        ("DELETE", f"/users/{bob.id}", {}),
        ("POST", "/pets", {"json": {"name": "Moe", "owner_id": ada.id}}),
        ("PUT", f"/pets/{rex.id}/owner", {"json": {"owner_id": bob.id}}),
        ("POST", f"/pets/{rex.id}/merge", {"json": {"drop_id": max_.id}}),
        ("DELETE", f"/pets/{rex.id}", {}),
        ("POST", "/pets/import", {"content": "name,owner_name\nMoe,Eve\n", "headers": {"content-type": "text/csv"}}),
    ]

    answers = []
    try:
        with serving(FAILING_COMMITS, tmp_path, db.url, workers=workers) as server:
            async with server.client() as client:
                for failure in FAILURES[engine_name]:
                    for method, path, options in requests:
                        headers = options.get("headers", {}) | {"fails-by": failure}
                        answers.append(await client.request(method, path, **options | {"headers": headers}))
                unchanged = await rows(db)
                succeeding = [await client.request(method, path, **options) for method, path, options in requests[:3]]
    finally:
        async with db.engine.begin() as connection:
            await connection.exec_driver_sql("DROP TABLE IF EXISTS host_row")

    statuses = {"a deferred constraint": 409, "a lost connection": 500}
    expected = [statuses[failure] for failure in FAILURES[engine_name] for _ in requests]
    assert [answer.status_code for answer in answers] == expected
    assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}
    assert all("retry-after" not in answer.headers for answer in answers)  # A repeated request might be done twice.
    assert unchanged == before
    assert [answer.status_code for answer in succeeding] == [201, 201, 200]


async def test_what_is_answered_with_201_is_seen_by_another_connection(db: Database, client: httpx.AsyncClient) -> None:
    missing = []

    async def create(number: int) -> None:
        answer = await client.post("/users", json={"name": "Ada", "email": f"{number}@example.com"})
        assert answer.status_code == 201
        async with db.reading() as session:
            if (await get_user(session, answer.json()["id"])).email != f"{number}@example.com":
                missing.append(number)

    for start in range(0, 400, 40):
        await asyncio.gather(*(create(number) for number in range(start, start + 40)))

    assert missing == []
    async with db.reading() as session:
        assert await count_users(session) == 400


async def test_200_clients_get_no_error_and_overwrite_nothing(db: Database, server: Server) -> None:
    async with db.transaction() as session:
        shared = (await create_user(session, UserCreate(name="Shared"))).id

    async def work(number: int) -> tuple[int, str]:
        name, city = f"Client {number}", f"City {number}"
        async with server.client() as client:
            created = await client.post("/users", json={"name": name, "email": f"{number}@example.com"})
            assert created.status_code == 201
            read = await client.get(created.headers["location"])
            assert read.json() == created.json()
            if_match = {"if-match": read.headers["etag"]}
            changed = await client.patch(created.headers["location"], json={"city": city}, headers=if_match)
            assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
            listed = await client.get("/users", params={"name_prefix": name, "limit": 1})
            assert [item["city"] for item in listed.json()["items"]] == [city]
            if_match = {"if-match": (await client.get(f"/users/{shared}")).headers["etag"]}
            edited = await client.patch(f"/users/{shared}", json={"notes": city}, headers=if_match)
            return edited.status_code, if_match["if-match"]

    edits = await asyncio.gather(*(work(number) for number in range(200)))

    assert {status for status, _ in edits} <= {200, 412}
    changed = [etag for status, etag in edits if status == 200]
    assert len(set(changed)) == len(changed)  # No two clients changed the same version.
    async with db.reading() as session:
        users = (await list_users(session, limit=1000)).items
    assert {user.name: (user.version, user.city) for user in users if user.id != shared} == {
        f"Client {number}": (2, f"City {number}") for number in range(200)
    }
    assert next(user.version for user in users if user.id == shared) == 1 + len(changed) > 1


async def test_of_two_changes_of_one_version_exactly_one_is_stored(db: Database, client: httpx.AsyncClient) -> None:
    path = (await client.post("/pets", json={"name": "Rex"})).headers["location"]

    for version in range(1, 21):
        answers = await asyncio.gather(
            *(
                client.patch(path, json={"notes": f"{version} {writer}"}, headers={"if-match": f'"{version}"'})
                for writer in "ab"
            )
        )

        won, lost = sorted(answers, key=lambda answer: answer.status_code)
        assert (won.status_code, lost.status_code) == (200, 412)
        assert lost.json()["code"] == "stale_version"
        assert (await client.get(path)).json() == won.json()


def request_of(method: str, path: str, body: bytes, media_type: str, *, length: int | None = None) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Type: {media_type}\r\n"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def send_and_leave(port: int, data: bytes, *, reset: bool) -> None:
    """Send, and close the connection at once: in order, or by a reset."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(data)


async def is_idle(client: httpx.AsyncClient) -> bool:
    """Tell whether, after a while, nothing of earlier requests is left."""

    async def idle() -> bool:
        return (await client.get("/resources")).json() == {"connections": 0, "files": 0}

    return await becomes_true(idle, within=20)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_client_that_disconnects_leaves_no_lock_and_no_half_row(
    reset: bool, db: Database, tmp_path: Path
) -> None:
    async with db.transaction() as session:
        ada = await create_user(session, UserCreate(name="Ada"))
    ada_json = json.dumps({"name": "Eve", "notes": "x" * 500}).encode()
    lines = "".join(f"Rex {number},Eve,{number}@example.com\n" for number in range(50))
    file = f"name,owner_name,owner_email\n{lines}".encode()
    whole = [
        ("PATCH", f"/users/{ada.id}", ada_json, "application/json"),
        ("POST", "/users", ada_json, "application/json"),
        ("POST", "/pets/import?dry_run=false", file, "text/csv"),
        ("POST", f"/users/{ada.id}/archive", b"", "application/json"),
        ("GET", "/pets/export", b"", "text/csv"),
    ]

    with serving(RESOURCES, tmp_path, db.url) as server:
        async with server.client() as client:
            before = await rows(db)
            for method, path, body, media_type in whole[:3]:
                half = request_of(method, path, body[: len(body) // 2], media_type, length=len(body))
                for _ in range(10):
                    send_and_leave(server.port, half, reset=reset)
            assert await is_idle(client)
            assert await rows(db) == before

            for _ in range(10):
                for each in whole:
                    send_and_leave(server.port, request_of(*each), reset=reset)
                answer = await client.patch(f"/users/{ada.id}", json={"city": "Oslo"}, timeout=20)
                assert answer.status_code == 200
            assert await is_idle(client)

        async with db.reading() as session:
            pets = await count_pets(session)
            eves = (await list_users(session, name_prefix="Eve", limit=1000)).items
        assert pets % 50 == 0  # An import is stored as a whole or not at all.
        assert sum(user.email is not None for user in eves) == min(pets, 50)
        assert {user.notes for user in eves if user.email is None} <= {"x" * 500}
        assert "ERROR" not in server.log, server.log


async def test_a_slow_reader_of_an_export_holds_no_connection_of_the_database(db: Database, tmp_path: Path) -> None:
    async with db.transaction() as session:
        await create_pets(session, [PetCreate(name="Rex", notes="x" * 100_000) for _ in range(200)])

    with serving(RESOURCES, tmp_path, db.url) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(request_of("GET", "/pets/export", b"", "text/csv"))
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        async with server.client() as client:
            assert (await client.get("/resources")).json() == {"connections": 0, "files": 1}
            assert (await client.post("/pets", json={"name": "Max"}, timeout=20)).status_code == 201
            writer.transport.abort()

            assert await is_idle(client)
        assert "ERROR" not in server.log, server.log


async def test_sigterm_ends_what_is_under_way_and_exits(db: Database, workers: int, tmp_path: Path) -> None:
    arrivals = tmp_path / "arrivals"
    with serving(SLOW_COMMITS, tmp_path, db.url, workers=workers) as server:
        async with server.client() as client:
            async with asyncio.TaskGroup() as tasks:
                posts = [tasks.create_task(client.post("/users", json={"name": f"Ada {n}"})) for n in range(16)]
                assert await becomes_true(lambda: arrivals.stat().st_size == len(posts), within=20)
                early = sum(post.done() for post in posts)
                server.process.send_signal(signal.SIGTERM)
            answers = [post.result() for post in posts]

            assert await asyncio.to_thread(server.process.wait, 20) in (0, -15)
            with pytest.raises(httpx.ConnectError):
                await client.get("/users")
        assert "ERROR" not in server.log, server.log

    assert early < len(posts)
    assert [answer.status_code for answer in answers] == [201] * len(posts)
    async with db.reading() as session:
        assert {user.name for user in (await list_users(session)).items} == {f"Ada {n}" for n in range(16)}
