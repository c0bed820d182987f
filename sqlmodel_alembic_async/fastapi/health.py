"""The endpoints that tell whether the process lives, and whether it can answer requests."""

from functools import cache
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from .. import migrations
from ..databases import Database
from .answers import json_response
from .documentation import refusals
from .problems import ProblemError


@cache
def _earlier_revisions() -> set[str | None]:
    return {None, *migrations.known_revisions()} - {migrations.head()}


class Health(BaseModel):
    """The process answers; for `/health/ready`, the database and its tables do, too."""

    status: Literal["ok"]


def add_health(router: APIRouter, database: Database) -> None:
    """Add the checks for a load balancer or an orchestrator."""

    @router.get("/live", response_model=Health)
    async def live() -> Response:
        """Tell that the process answers. It does not ask the database."""
        return json_response({"status": "ok"})

    @router.get("/ready", response_model=Health, responses=refusals())
    async def ready() -> Response:
        """Tell whether the database answers and its tables are at this version's revision, or at a later one."""
        # A later one is of the next version, which is being deployed: this process may still answer.
        if await migrations.current(database=database) in _earlier_revisions():
            detail = "the tables are not at this version's revision: run alembic upgrade head"
            raise ProblemError(503, "migrations_pending", detail)
        return json_response({"status": "ok"})
