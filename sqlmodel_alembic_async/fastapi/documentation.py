"""The statuses and headers of the endpoints, as FastAPI documents them in OpenAPI."""

from typing import Any

from .problems import MEDIA_TYPE, Problem

_Documentation = dict[int | str, dict[str, Any]]


def _documented(status: int, **headers: str) -> _Documentation:
    described = {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}
    return {status: {"headers": described}}


_VERSION = 'The version of the row in quotes, such as "3".'
ROW = _documented(200, ETag=_VERSION)
NEW_ROW = _documented(201, ETag=_VERSION, Location="The path of the row.")
PAGE = _documented(200, Link='The next page, as in `</pets?after=...>; rel="next"`; missing on the last page.')
NOT_MODIFIED: _Documentation = {304: {"description": "The client has the current version."}}


class _ProblemContent(dict[str, Any]):
    """The content of a documented problem. FastAPI adds the schema under the route's media type: this replaces it."""

    def setdefault(self, key: str, default: Any = None) -> Any:
        return super().setdefault(MEDIA_TYPE, default)


def refusals(*statuses: int) -> _Documentation:
    """Return the documentation of these statuses; each route may also answer 400, 422, 500 and 503."""
    return {
        status: {"model": Problem, "content": _ProblemContent()} for status in sorted({400, 422, 500, 503, *statuses})
    }
