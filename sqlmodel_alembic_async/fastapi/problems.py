"""Errors as answers: problem details as in RFC 9457, without any value of a request or a row."""

import logging
from collections.abc import Collection, Sequence
from http import HTTPStatus
from inspect import isawaitable
from typing import Any, Literal
from urllib.parse import quote

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import to_json

from ..errors import (
    AlreadyExistsError,
    ConflictError,
    DatabaseError,
    DatabaseUnavailableError,
    ImportRejectedError,
    InvalidCursorError,
    InvalidValueError,
    NotFoundError,
    OutcomeUnknownError,
    PetDeceasedError,
    PetManagementError,
    PetNotFoundError,
    SimilarExistsError,
    StaleVersionError,
    StorageError,
    TransactionConflictError,
    UserHasPetsError,
    UserNotFoundError,
)
from ..import_report import ImportReport
from .reports import ImportReportPublic, public_report

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 1  # Seconds.

_MAX_ERRORS = 100
_HIDDEN = "?"  # Stands for a name that the client made up.

_LOG = logging.getLogger(__name__)

Code = Literal[
    "already_exists",
    "conflict",
    "database_error",
    "database_unavailable",
    "import_rejected",
    "incomplete_body",
    "invalid_cursor",
    "invalid_request",
    "invalid_value",
    "malformed_header",
    "malformed_json",
    "migrations_pending",
    "not_found",
    "outcome_unknown",
    "pet_deceased",
    "pet_not_found",
    "precondition_required",
    "similar_exists",
    "stale_version",
    "storage_error",
    "too_large",
    "transaction_conflict",
    "unsupported_media_type",
    "user_has_pets",
    "user_not_found",
]

_KINDS: dict[type[Exception], tuple[int, Code]] = {
    UserNotFoundError: (404, "user_not_found"),
    PetNotFoundError: (404, "pet_not_found"),
    NotFoundError: (404, "not_found"),
    AlreadyExistsError: (409, "already_exists"),
    SimilarExistsError: (409, "similar_exists"),
    UserHasPetsError: (409, "user_has_pets"),
    StaleVersionError: (409, "stale_version"),
    PetDeceasedError: (409, "pet_deceased"),
    ConflictError: (409, "conflict"),
    InvalidValueError: (422, "invalid_value"),
    InvalidCursorError: (422, "invalid_cursor"),
    TransactionConflictError: (503, "transaction_conflict"),
    DatabaseUnavailableError: (503, "database_unavailable"),
    OutcomeUnknownError: (500, "outcome_unknown"),
    StorageError: (500, "storage_error"),
    DatabaseError: (500, "database_error"),
    PetManagementError: (500, "database_error"),
}
# The titles of this package's shapes and filters: another ValidationError is the application's own.
_TITLES = {"UserCreate", "UserUpdate", "PetCreate", "PetUpdate", "UserFilters", "PetFilters"}


class InvalidField(BaseModel):
    """A value that is not valid: where it stands in the request, and what is wrong with it."""

    loc: list[str | int] = Field(description="The path to the value, such as `body`, `name`; `?` for an unknown name.")
    msg: str = Field(description="What is wrong; for people.")
    type: str = Field(description="The kind of the error in pydantic, or the `code` of the problem; for programs.")


class Problem(BaseModel):
    """What went wrong, as in RFC 9457. It contains no value of the request and no SQL."""

    type: Literal["about:blank"] = "about:blank"
    title: str = Field(description="The phrase of the HTTP status.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong, and what to do; for people.")
    code: Code = Field(description="The kind of the problem; for programs.")
    field: str | None = Field(default=None, description="The field that the problem is about, if it is about one.")
    errors: list[InvalidField] | None = Field(default=None, description="The invalid values, at most 100.")
    candidates: list[int] | None = Field(default=None, description="The ids of similar rows, the most similar first.")
    report: ImportReportPublic | None = Field(default=None, description="The report of a rejected import.")


class ProblemError(HTTPException):
    """A request is refused with this problem."""

    def __init__(self, status: int, code: Code, detail: str, **more: Any):
        super().__init__(status, detail)
        self.problem = _problem(status, code, detail, **more)


def answer(problem: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    """Return the response of a problem."""
    return Response(to_json(problem), problem["status"], headers, MEDIA_TYPE)


def answer_of(request: Request, error: Exception) -> Response | None:
    """Return the response of an error of this package or of an invalid request; None for any other error."""
    if isinstance(error, ProblemError):
        return answer(error.problem)
    if isinstance(error, RequestValidationError):
        return answer(_invalid(error.errors(), ()))
    if isinstance(error, ValidationError):
        # The title is the name of a shape, or ends with it: FastAPI's is "function-after[_fields_agree(), PetCreate]".
        if error.title.rstrip("]").rpartition(" ")[2] not in _TITLES:
            return None
        location = ("query",) if request.method == "GET" else ("body",)
        return answer(_invalid(error.errors(include_url=False, include_context=False, include_input=False), location))
    if isinstance(error, ImportRejectedError):  # Its text may name a header of the file.
        return answer(import_rejected(error.report).problem)
    if not isinstance(error, PetManagementError):
        return None
    status, code = next(_KINDS[kind] for kind in type(error).__mro__ if kind in _KINDS)
    if isinstance(error, StaleVersionError) and "if-match" in request.headers:
        status = 412
    if status >= 500:
        _log(request, error, status)
    retry = {"retry-after": str(RETRY_AFTER)} if status == 503 else None
    return answer(_problem(status, code, str(error), **_details(error)), retry)


def path_of(request: Request) -> str:
    """Return the path of the request, for a header or a log. Unlike `request.url`, it does not depend on Host."""
    path = quote(request.scope["path"])
    # "//" at the beginning of an address is followed by a host.
    return f"/%2F{path[2:]}" if path.startswith("//") else path


def unknown_reference(field: str, error: NotFoundError) -> ProblemError:
    """Return the problem of a field of the body that names a row that does not exist."""
    invalid = {"loc": ["body", field], "msg": str(error), "type": _KINDS[type(error)][1]}
    return ProblemError(422, _KINDS[type(error)][1], f"{field}: {error}", field=field, errors=[invalid])


def import_rejected(report: ImportReport, columns: Collection[str] = ()) -> ProblemError:
    """Return the problem of a rejected import; `columns` are the headers that the client mapped."""
    detail = "nothing was imported: the report has the reasons"
    return ProblemError(422, "import_rejected", detail, report=public_report(report, columns))


def install_error_handlers(app: FastAPI) -> None:
    """Answer this package's errors with problem details, on the application's own routes, too.

    The router of create_router() does so without it. It adds handlers for PetManagementError, and for the
    ValidationError of a service or a shape of this package; another ValidationError gets the application's handler for
    it or for ValueError, or is raised again. It does not handle FastAPI's RequestValidationError: its own handler
    answers an invalid request, and quotes the value.
    """
    own: Any = app.exception_handlers.get(ValidationError)

    async def handle(request: Request, error: Exception) -> Response:
        if response := answer_of(request, error):
            return response
        handler = own or app.exception_handlers.get(ValueError)
        if handler is None:
            raise error
        answered = handler(request, error)
        return await answered if isawaitable(answered) else answered

    app.add_exception_handler(PetManagementError, handle)
    app.add_exception_handler(ValidationError, handle)


def _problem(status: int, code: Code, detail: str, **more: Any) -> dict[str, Any]:
    title = HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code, **more}


def _details(error: PetManagementError) -> dict[str, Any]:
    if isinstance(error, SimilarExistsError):
        return {"candidates": error.ids}
    if isinstance(error, InvalidCursorError):
        return {"field": "after"}
    field = getattr(error, "field", None)
    return {} if field is None else {"field": field}


def _invalid(errors: Sequence[Any], location: tuple[str, ...]) -> dict[str, Any]:
    """Return the problem of invalid values. It quotes none of them."""
    shown = [
        {
            "loc": _shown((*location, *error["loc"])),
            "msg": error["msg"].removeprefix("Value error, "),
            "type": error["type"],
        }
        for error in errors[:_MAX_ERRORS]
    ]
    first = shown[0]
    detail = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    if len(errors) > 1:
        detail += f" (and {len(errors) - 1} more)"
    names = {error["loc"][1] for error in shown if len(error["loc"]) > 1} - {_HIDDEN}
    field = {"field": names.pop()} if len(names) == 1 else {}
    return _problem(422, "invalid_request", detail, **field, errors=shown)


def _shown(location: tuple[Any, ...]) -> list[str | int]:
    """Return the location; an unknown name is shown as "?", unless it looks like the name of a field."""
    return [
        part if isinstance(part, int) or (part.isidentifier() and len(part) <= 64) else _HIDDEN for part in location
    ]


def _log(request: Request, error: PetManagementError, status: int) -> None:
    if status == 503:
        _LOG.warning("%s %s: %s", request.method, path_of(request), error)
    else:
        _LOG.error("%s %s failed", request.method, path_of(request), exc_info=error)
