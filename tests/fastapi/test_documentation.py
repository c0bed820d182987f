from fastapi import FastAPI

from sqlmodel_alembic_async.fastapi.documentation import NEW_ROW, PAGE, ROW, refusals
from sqlmodel_alembic_async.fastapi.routes import new_router


def test_the_documentation_of_a_problem_names_its_media_type() -> None:
    app = FastAPI()
    router = new_router("/x", dependencies=(), tags=())

    @router.get("/y", responses=refusals(404))
    async def find() -> None: ...

    app.include_router(router)
    operation = app.openapi()["paths"]["/x/y"]["get"]

    assert operation["operationId"] == "find"
    assert operation["responses"].keys() == {"200", "400", "404", "422", "500", "503"}
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert operation["responses"]["404"]["content"] == content


def test_headers_are_documented_with_the_status_that_has_them() -> None:
    assert {status: list(answer["headers"]) for status, answer in (NEW_ROW | ROW).items()} == {
        201: ["ETag", "Location"],
        200: ["ETag"],
    }
    assert list(PAGE[200]["headers"]) == ["Link"]
