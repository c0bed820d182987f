"""The responses of the endpoints."""

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from pydantic_core import to_json

from ..microchips import MicrochipDescription
from ..models import Pet, User
from ..public_shapes import PetPublic, UserPublic
from ..services.duplicates.search import DuplicateGroup
from ..services.merges import MergeReport
from ..services.statements.pages import Page
from ..services.statistics import PetStatistics
from .preconditions import etag, is_current
from .problems import path_of

_FIELDS = {User: tuple(UserPublic.model_fields), Pet: tuple(PetPublic.model_fields)}


def json_response(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a response of JSON."""
    return Response(to_json(content), status, headers, "application/json")


def row_response(row: User | Pet) -> Response:
    """Return the response of a row, with its version as the ETag."""
    return json_response(_public(row), headers={"etag": etag(row)})


def row_unless_current(row: User | Pet, if_none_match: str | None) -> Response:
    """Return the response of a row, or 304 if the client has this version."""
    if is_current(if_none_match, row):
        return Response(status_code=304, headers={"etag": etag(row)})
    return row_response(row)


def user_with_pets(user: User) -> Response:
    """Return the response of a user and the pets; without an ETag, because a pet may change when the user does not."""
    return json_response(_public(user) | {"pets": [_public(pet) for pet in user.pets]})


def created(request: Request, row: User | Pet) -> Response:
    """Return the response of a new row, with its address."""
    headers = {"etag": etag(row), "location": f"{path_of(request)}/{row.id}"}
    return json_response(_public(row), status=201, headers=headers)


def page(request: Request, page: Page[Any]) -> Response:
    """Return the response of a page, with a link to the next one."""
    headers = None
    if page.next is not None:
        kept = [(name, text) for name, text in request.query_params.multi_items() if name not in ("after", "offset")]
        headers = {"link": f'<{path_of(request)}?{urlencode([*kept, ("after", page.next)])}>; rel="next"'}
    return json_response({"items": [_public(row) for row in page.items], "next": page.next}, headers=headers)


async def duplicates(groups: AsyncIterator[DuplicateGroup[Any]], limit: int) -> Response:
    """Return the response of the first groups."""
    items: list[dict[str, Any]] = []
    async for group in groups:
        if len(items) == limit:
            return json_response({"items": items, "more": True})
        rows = [_public(row) for row in group.rows]
        items.append({"rows": rows, "reasons": group.reasons, "score": group.score})
    return json_response({"items": items, "more": False})


def merge(report: MergeReport[Any]) -> Response:
    """Return the response of a merge."""
    conflicts = {name: {"kept": kept, "dropped": dropped} for name, (kept, dropped) in report.conflicts.items()}
    shown = {name: getattr(report, name) for name in ("dropped_id", "filled", "moved_pets", "dry_run")}
    return json_response({"kept": _public(report.kept), "conflicts": conflicts, **shown})


def statistics(figures: PetStatistics) -> Response:
    """Return the response of statistics; a species or a year may be None, which is no key in JSON."""
    groups = {
        "by_species": [{"species": species, "pets": pets} for species, pets in figures.by_species.items()],
        "born_per_year": [{"year": year, "pets": pets} for year, pets in figures.born_per_year.items()],
    }
    return json_response(asdict(figures) | groups)


def microchip(description: MicrochipDescription, pet: Pet | None) -> Response:
    """Return the response of a microchip number and the pet that has it."""
    return json_response(asdict(description) | {"pet": pet and _public(pet)})


def _public(row: User | Pet) -> dict[str, Any]:
    """Return the values of UserPublic or PetPublic. They were validated when the row was stored."""
    values = row.__dict__  # It loads nothing: a value that is missing raises KeyError.
    return {name: values[name] for name in _FIELDS[type(row)]}
