"""The router of users and pets."""

from collections.abc import Sequence
from enum import Enum
from itertools import chain
from typing import Any

from fastapi import APIRouter, params

from ..databases import Database
from ..databases import database as default_database
from .csv_files import add_csv_files
from .health import add_health
from .pets import add_microchips, add_pets
from .routes import new_router
from .users import add_users


def create_router(
    database: Database = default_database,
    *,
    prefix: str = "",
    dependencies: Sequence[params.Depends] = (),
    tags: Sequence[str | Enum] | None = None,
    require_if_match: bool = False,
    max_import_bytes: int = 10_000_000,
) -> APIRouter:
    """Return a router with the endpoints of users and pets, for `app.include_router()`.

    Each endpoint answers after the COMMIT. Errors are problem details as in RFC 9457. There is no authentication: pass
    your own as `dependencies`.

    Args:
        database: The database; by default the one of DATABASE_URL.
        prefix: The path before `/users`, `/pets`, `/microchips` and `/health`, such as "/api".
        dependencies: Dependencies of all endpoints but those of `/health`, such as [Depends(check_login)]. They must
            not use SessionDependency or ReadingDependency: each request would hold two connections. Open
            `database.reading()` in them.
        tags: The tags of all endpoints in the documentation; by default "users", "pets" and "health".
        require_if_match: Answer 428 to a PATCH without If-Match, so that no client overwrites what it has not read.
        max_import_bytes: The size of the largest CSV file that is accepted, in bytes.

    """
    router = APIRouter(prefix=prefix)

    def part(path: str, tag: str, dependencies: Sequence[params.Depends] = dependencies) -> APIRouter:
        return new_router(prefix + path, dependencies=dependencies, tags=tags or [tag])

    parts = users, pets, microchips, health = (
        part("/users", "users"),
        part("/pets", "pets"),
        part("/microchips", "pets"),
        part("/health", "health", ()),
    )
    add_users(users, database, require_if_match=require_if_match)
    add_csv_files(pets, database, max_import_bytes=max_import_bytes)
    add_pets(pets, database, require_if_match=require_if_match)
    add_microchips(microchips, database)
    add_health(health, database)
    # FastAPI tries the routes of an included router one after the other, and again at each level of inclusion: so there
    # is one level, and the short paths, which most requests have, come first.
    router.routes.extend(sorted(chain(*(part.routes for part in parts)), key=_length))
    return router


def _length(route: Any) -> int:
    return len(route.path.split("/"))
