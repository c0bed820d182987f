import json
from typing import Any

import httpx
import pytest
from fastapi import Depends, HTTPException, Request
from fastapi.exceptions import ResponseValidationError
from pydantic import BaseModel, ValidationError

from sqlmodel_alembic_async import Database, UserNotFoundError
from sqlmodel_alembic_async.fastapi.problems import ProblemError
from sqlmodel_alembic_async.fastapi.routes import LimitedRequest

from .conftest import application, client_of, problem_of

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{'name': 'Rex'}",
        b'{"name": "Rex", "name": "Max"}',
        b'{"name": "Rex", "a": {"b": 1, "b": 1}}',
        b'{"name": NaN}',
        b'{"weight_g": -Infinity}',
        b'{"name": "\xff"}',
        '{"name": "Rex"}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"weight_g": ' + b"9" * 5000 + b"}",
    ],
    ids=range(11),
)
async def test_a_body_that_is_no_json_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    assert problem_of(await client.post("/pets", content=body, headers=JSON)) == (400, "malformed_json", None)


@pytest.mark.parametrize("method", ["patch", "delete"])
async def test_an_option_that_the_request_does_not_have_is_never_ignored(
    client: httpx.AsyncClient, method: str
) -> None:
    rex = (await client.post("/pets", json={"name": "Rex"})).json()["id"]
    mia = (await client.post("/pets", json={"name": "Mia"})).json()["id"]
    body = {"json": {"name": "Max"}} if method == "patch" else {}

    answers = [
        await client.request(method, f"/pets/{rex}", params={"dry_run": True}, **body),
        await client.post(f"/pets/{rex}/merge", params={"dry_run": True}, json={"drop_id": mia}),
        await client.post(f"/pets/{rex}/archive", params={"dry_run": True, "token": "x"}),
    ]
    with_a_token = await client.request(method, f"/pets/{rex}", params={"token": "x"}, **body)

    assert [problem_of(answer) for answer in answers] == [(422, "invalid_request", "dry_run")] * 3
    assert with_a_token.status_code in (200, 204)
    assert (await client.get(f"/pets/{mia}")).json()["archived_at"] is None


async def test_an_object_with_very_many_names_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/pets", json={f"name{number}": 1 for number in range(101)})

    assert problem_of(answer) == (413, "too_large", None)


async def test_an_empty_body_is_a_missing_one(client: httpx.AsyncClient) -> None:
    assert problem_of(await client.post("/pets", headers=JSON)) == (422, "invalid_request", None)


async def test_notes_of_the_greatest_length_fit_even_if_each_character_is_escaped(client: httpx.AsyncClient) -> None:
    notes = "\u00e9" * 1_000_000

    answer = await client.post("/pets", content=json.dumps({"name": "Rex", "notes": notes}), headers=JSON)

    assert answer.status_code == 201
    assert answer.json()["notes"] == notes


async def test_a_dependency_of_the_application_may_read_the_body_first(db: Database) -> None:
    bodies: list[bytes] = []

    async def audit(request: Request) -> None:
        bodies.append(await request.body())

    async with client_of(application(db, dependencies=[Depends(audit)])) as client:
        created = await client.post("/pets", json={"name": "Rex"})
        imported = await client.post("/pets/import", content="name\nMax\n", headers={"content-type": "text/csv"})

    assert (created.status_code, imported.status_code) == (201, 200)
    assert bodies == [b'{"name":"Rex"}', b"name\nMax\n"]


async def test_a_body_that_no_row_needs_is_refused_before_it_is_read(client: httpx.AsyncClient) -> None:
    async def endless():  # type: ignore[no-untyped-def]  # httpx takes any async iterable
        for _ in range(1000):
            yield b" " * 1_000_000
        raise AssertionError("the body was read to its end")

    assert problem_of(await client.post("/pets", content=endless(), headers=JSON)) == (413, "too_large", None)


@pytest.mark.parametrize("path", ["/pets", "/pets/import"])
async def test_a_client_that_disconnects_in_the_middle_of_a_body_raises_nothing(db: Database, path: str) -> None:
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []
    kind = b"text/csv" if path == "/pets/import" else b"application/json"
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": [(b"content-type", kind)]}

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    await application(db)(scope, receive, send)

    assert [message.get("status") for message in sent] == [400, None]
    assert json.loads(sent[1]["body"])["code"] == "incomplete_body"


async def test_a_body_without_a_media_type_is_never_read_as_json() -> None:
    request = LimitedRequest({"type": "http", "method": "POST", "path": "/pets", "query_string": b"", "headers": []})

    with pytest.raises(ProblemError, match="Content-Type: application/json"):
        await request.json()


class Invalid(BaseModel):
    number: int


def invalid() -> None:
    Invalid.model_validate({"number": "x"})


def unknown() -> None:
    raise UserNotFoundError(7)


def teapot() -> None:
    raise HTTPException(418, "short and stout")


async def test_errors_of_an_applications_dependencies_stay_its_own(db: Database) -> None:
    async with client_of(application(db, dependencies=[Depends(teapot)])) as client:
        answer = await client.get("/users")
    async with client_of(application(db, dependencies=[Depends(invalid)])) as client:
        with pytest.raises(ValidationError):
            await client.get("/users")

    assert (answer.status_code, answer.json()) == (418, {"detail": "short and stout"})


async def test_errors_of_this_package_in_an_applications_dependencies_are_problems(db: Database) -> None:
    async with client_of(application(db, dependencies=[Depends(unknown)])) as client:
        assert problem_of(await client.get("/users")) == (404, "user_not_found", None)


async def test_the_applications_own_routes_are_left_alone(db: Database) -> None:
    app = application(db)

    @app.post("/own", response_model=int)
    async def own(data: Invalid) -> Any:
        return "no number"

    async with client_of(app) as client:
        refused = await client.post("/own", json={"number": "x"})
        assert refused.headers["content-type"] == "application/json"
        with pytest.raises(ResponseValidationError):
            await client.post("/own", json={"number": 1})


async def test_a_part_of_the_prefix_may_be_named_as_a_path_of_the_router(db: Database) -> None:
    async with client_of(application(db, prefix="/{tenant}")) as client:
        assert (await client.get("/export/pets")).status_code == 200
        assert (await client.get("/export/pets/export")).status_code == 200
        assert (await client.patch("/export/pets/export", json={})).status_code == 405
