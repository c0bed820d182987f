"""Applications with the router, called without a server; each request is a real one on a real database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from sqlmodel_alembic_async import Database
from sqlmodel_alembic_async.fastapi import create_router

PROBLEM = "application/problem+json"


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


def application(database: Database, **options: Any) -> FastAPI:
    app = FastAPI()
    app.include_router(create_router(database, **options))
    return app


@pytest.fixture
async def client(db: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(application(db)) as client:
        yield client


def problem_of(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Return status, code and field of a problem."""
    problem = answer.json()
    assert answer.headers["content-type"] == PROBLEM
    assert problem["type"] == "about:blank"
    assert problem["status"] == answer.status_code
    assert problem["detail"]
    return answer.status_code, problem["code"], problem.get("field")


async def created(client: httpx.AsyncClient, path: str, **values: Any) -> int:
    """Create a row, and return its id."""
    answer = await client.post(path, json=values)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])
