import inspect
import logging
from typing import Any, get_args

import pytest
from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, TypeAdapter, ValidationError
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    Database,
    DatabaseUnavailableError,
    ImportRejectedError,
    ImportReport,
    InvalidValueError,
    OutcomeUnknownError,
    PetCreate,
    PetDeceasedError,
    PetManagementError,
    SimilarExistsError,
    StaleVersionError,
    StorageError,
    TransactionConflictError,
    UserHasPetsError,
    UserNotFoundError,
    errors,
    list_pets,
)
from sqlmodel_alembic_async.fastapi import Problem, install_error_handlers, problems

from .conftest import client_of, problem_of

EXAMPLES: dict[Exception, tuple[int, str, str | None]] = {
    UserNotFoundError(7): (404, "user_not_found", None),
    AlreadyExistsError("microchip"): (409, "already_exists", "microchip"),
    SimilarExistsError([3, 1]): (409, "similar_exists", None),
    UserHasPetsError(7): (409, "user_has_pets", None),
    StaleVersionError(3): (409, "stale_version", None),
    PetDeceasedError(7): (409, "pet_deceased", None),
    InvalidValueError("weight_g"): (422, "invalid_value", "weight_g"),
    InvalidValueError(constraint="ck_pet_weight_g"): (422, "invalid_value", None),
    TransactionConflictError("try again"): (503, "transaction_conflict", None),
    DatabaseUnavailableError("lost"): (503, "database_unavailable", None),
    OutcomeUnknownError("lost"): (500, "outcome_unknown", None),
    StorageError("full"): (500, "storage_error", None),
    PetManagementError("else"): (500, "database_error", None),
}


class Application:
    """An application whose one endpoint raises an error."""

    def __init__(self, error: Exception) -> None:
        self.app = FastAPI()
        install_error_handlers(self.app)

        @self.app.get("/")
        async def fail() -> None:
            raise error


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
async def test_each_error_is_a_problem_on_an_applications_own_routes(error: Exception) -> None:
    async with client_of(Application(error).app) as client:
        answer = await client.get("/")

    assert problem_of(answer) == EXAMPLES[error]
    problem = Problem.model_validate(answer.json())
    assert problem.detail == str(error)
    assert answer.headers.get("retry-after") == ("1" if answer.status_code == 503 else None)
    assert problem.candidates == ([3, 1] if isinstance(error, SimilarExistsError) else None)


def test_every_error_class_has_a_status_and_a_code_of_its_own() -> None:
    classes = {value for _, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__}

    assert classes == {*problems._KINDS, ImportRejectedError}
    assert {code for _, code in problems._KINDS.values()} <= set(get_args(problems.Code))


async def test_a_stale_version_is_a_failed_precondition_if_the_client_sent_one() -> None:
    async with client_of(Application(StaleVersionError(3)).app) as client:
        answer = await client.get("/", headers={"if-match": '"3"'})

    assert problem_of(answer) == (412, "stale_version", None)


async def test_a_rejected_import_of_an_application_shows_no_value() -> None:
    report = ImportReport(rejected=1)
    report.reject(2, "secret header", "secret value", "must not be blank")
    async with client_of(Application(ImportRejectedError(report)).app) as client:
        answer = await client.get("/")

    assert problem_of(answer) == (422, "import_rejected", None)
    assert "secret" not in answer.text


def validation_error(kind: Any, value: object) -> ValidationError:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(kind).validate_python(value)
    return refused.value


async def test_a_value_that_a_shape_refuses_is_a_problem() -> None:
    error = validation_error(PetCreate, {"name": "", "weight_g": -1, "hunter2": 1, "hunter 2": 2})
    async with client_of(Application(error).app) as client:
        answer = await client.get("/")

    assert problem_of(answer) == (422, "invalid_request", None)
    assert [each["loc"][1] for each in answer.json()["errors"]] == ["name", "weight_g", "hunter2", "?"]
    assert answer.json()["detail"] == "query.name: must not be blank (and 3 more)"


async def test_of_very_many_errors_the_first_hundred_are_shown() -> None:
    error = validation_error(PetCreate, {f"name{number}": 1 for number in range(5000)})
    async with client_of(Application(error).app) as client:
        answer = await client.get("/")

    assert len(answer.json()["errors"]) == 100
    assert answer.json()["detail"].endswith("(and 5000 more)")


async def test_a_filter_that_a_service_refuses_is_a_problem(migrated_url: URL) -> None:
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/pets")
    async def pets(species: str | None = Query(None)) -> int:
        async with Database(migrated_url) as db, db.reading() as session:
            return len((await list_pets(session, species=species)).items)

    async with client_of(app) as client:
        assert (await client.get("/pets")).json() == 0
        assert problem_of(await client.get("/pets", params={"species": " "})) == (422, "invalid_request", "species")


async def test_an_error_of_the_application_stays_its_own() -> None:
    class Settings(BaseModel):
        port: int

    for error in (validation_error(Settings, {"port": "x"}), LookupError("no such thing")):
        async with client_of(Application(error).app) as client:
            with pytest.raises(type(error)):
                await client.get("/")


@pytest.mark.parametrize("handled", [ValueError, ValidationError])
async def test_an_error_of_the_application_gets_the_applications_handler(handled: type[Exception]) -> None:
    class User(BaseModel):  # A name that this package has, too.
        port: int

    async def own_answer(request: Request, error: Exception) -> Response:
        return Response("own", 400)

    def plain_answer(request: Request, error: Exception) -> Response:
        return Response("own", 400)

    for own in (own_answer, plain_answer):
        app = FastAPI()
        app.add_exception_handler(handled, own)
        install_error_handlers(app)

        @app.get("/")
        async def fail() -> None:
            User.model_validate({"port": "x"})

        @app.get("/pets")
        async def refuse() -> None:
            PetCreate.model_validate({"name": ""})

        async with client_of(app) as client:
            assert (await client.get("/")).text == "own"
            assert problem_of(await client.get("/pets")) == (422, "invalid_request", "name")


async def test_a_request_that_fastapi_refuses_keeps_the_applications_handler() -> None:
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/")
    async def read(number: int) -> None: ...

    async with client_of(app) as client:
        answer = await client.get("/", params={"number": "x"})

    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/json")


@pytest.mark.parametrize(
    ("error", "level"),
    [(StorageError("full"), logging.ERROR), (DatabaseUnavailableError("lost"), logging.WARNING)],
    ids=["500", "503"],
)
async def test_an_operator_reads_of_what_the_client_cannot_mend(
    error: Exception, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(Application(error).app) as client:
        await client.get("/")
        await client.get("/", headers={"x": "y"})

    records = [record for record in caplog.records if record.name.startswith("sqlmodel_alembic_async")]
    assert [record.levelno for record in records] == [level, level]
    assert "GET /" in records[0].getMessage()
    assert (records[0].exc_info is not None) is (level == logging.ERROR)


async def test_a_client_error_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with client_of(Application(UserNotFoundError(7)).app) as client:
        await client.get("/")

    assert [record for record in caplog.records if record.name.startswith("sqlmodel_alembic_async")] == []
