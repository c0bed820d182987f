"""The class of the router's routes: errors become problems, and bodies and query parameters are read strictly."""

import inspect
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from enum import Enum
from typing import Any

from fastapi import APIRouter, Request, Response, params
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope

from .problems import ProblemError, answer_of
from .queries import CreateQuery, DeleteUserQuery, ImportQuery

_MAX_JSON_BYTES = 8_000_000  # Notes of a million characters, each escaped as \uXXXX.
_MAX_NAMES = 100  # More than any body has: an error for each of a million names would hold the event loop for seconds.

# A dry run must not be real where there is none. Other parameters may be those of the application's dependencies.
_OPTIONS = {name for query in (CreateQuery, DeleteUserQuery, ImportQuery) for name in query.model_fields}

# PATCH /pets/export is 405, and not an update of a pet with an invalid id.
_NOT_IDS = {"duplicates", "export", "import", "statistics"}
_IDS = ("user_id", "pet_id")  # Other parameters may be the application's: of its prefix, or of a mount.


class LimitedRequest(Request):
    """A request whose body has a limit, and whose JSON must be unambiguous."""

    max_bytes = _MAX_JSON_BYTES

    async def stream(self) -> AsyncIterator[bytes]:  # type: ignore[override]  # Starlette's is a generator, too
        """Yield the body in parts.

        Raises:
            ProblemError: The body is longer than `max_bytes`, or the client disconnected before its end.

        """
        received = 0
        try:
            async for part in super().stream():
                received += len(part)
                if received > self.max_bytes:
                    raise ProblemError(413, "too_large", f"the body is longer than {self.max_bytes:,} bytes")
                yield part
        except ClientDisconnect:
            raise ProblemError(400, "incomplete_body", "the client disconnected before the end of the body") from None

    async def json(self) -> Any:
        """Return the body's value.

        Raises:
            ProblemError: The request has no media type, or the body is not JSON as in RFC 8259, or an object has a name
                twice or too many names.

        """
        if not self.headers.get("content-type"):
            # Earlier FastAPI reads it as JSON: a page of another site could send one without asking by CORS.
            raise ProblemError(422, "invalid_request", "send the body with Content-Type: application/json")
        try:
            return json.loads((await self.body()).decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            detail = (
                f"the body must be JSON in UTF-8, without NaN; an object may have {_MAX_NAMES} names, each only once"
            )
            raise ProblemError(400, "malformed_json", detail) from None


class ProblemRoute(APIRoute):
    """A route that answers errors of this package and invalid requests with problem details."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler of the route, with our errors answered."""
        handle: Callable[[Request], Awaitable[Response]] = super().get_route_handler()
        has_query = "query" in inspect.signature(self.endpoint).parameters

        async def answered(request: Request) -> Response:
            request = LimitedRequest(request.scope, request.receive)
            try:
                if request.scope["query_string"]:
                    _refuse_ignored(request, has_query)
                return await handle(request)
            except Exception as error:
                response = answer_of(request, error)
                if response is None:
                    raise
                return response

        return answered

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match as Starlette does, but never match /pets/{pet_id} with /pets/export."""
        match, child_scope = super().matches(scope)
        if match is not Match.NONE and any(child_scope["path_params"].get(name) in _NOT_IDS for name in _IDS):
            return Match.NONE, {}
        return match, child_scope


def _refuse_ignored(request: Request, has_query: bool) -> None:
    """Refuse query parameters that FastAPI would ignore: a repeated one, and an option of another endpoint."""
    items = request.query_params.multi_items()
    if has_query:
        ignored = {name for name, times in Counter(name for name, _ in items).items() if times > 1}
    else:
        ignored = _OPTIONS.intersection(request.query_params)
    if ignored:
        reason = "must be given only once" if has_query else "is no parameter of this request"
        raise RequestValidationError(
            [{"loc": ("query", name), "msg": reason, "type": "ignored"} for name in sorted(ignored)]
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > _MAX_NAMES:
        raise ProblemError(413, "too_large", f"an object has more than {_MAX_NAMES} names")
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name twice")
    return values


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def new_router(prefix: str, *, dependencies: Sequence[params.Depends], tags: Sequence[str | Enum]) -> APIRouter:
    """Return an empty router, whose operations are named as the endpoints."""
    return APIRouter(
        prefix=prefix,
        dependencies=list(dependencies),
        tags=list(tags),
        route_class=ProblemRoute,
        default_response_class=JSONResponse,  # Without it, the documentation names the application's media type.
        generate_unique_id_function=lambda route: route.name,
    )
