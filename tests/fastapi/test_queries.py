from typing import Annotated, Any, get_args

import httpx
import pytest
from fastapi import FastAPI, Query
from pydantic import ValidationError

from sqlmodel_alembic_async import Database, OrderBy, PetFilters, UserFilters, list_pets, list_users
from sqlmodel_alembic_async.fastapi import PagePublic, PetQuery, UserQuery, reading_dependency
from sqlmodel_alembic_async.public_shapes import PetPublic

from .conftest import client_of, created, problem_of


@pytest.mark.parametrize(("query", "filters"), [(UserQuery, UserFilters), (PetQuery, PetFilters)])
def test_a_query_has_every_filter_and_every_argument_of_the_list(query: type[UserQuery], filters: Any) -> None:
    pages = {"order_by", "limit", "after", "offset"}

    assert query.model_fields.keys() == filters.__annotations__.keys() | pages


@pytest.mark.parametrize("query", [UserQuery, PetQuery])
async def test_a_query_without_parameters_is_the_list_without_arguments(query: type[UserQuery], db: Database) -> None:
    service = list_users if query is UserQuery else list_pets
    async with db.reading() as session:
        assert await service(session, **query().model_dump()) == await service(session)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "1e2"),
        ("limit", "+1"),
        ("limit", " 1"),
        ("limit", "1_0"),
        ("limit", "1.0"),
        ("limit", "\uff11"),
        ("limit", ""),
        ("offset", "-1"),
        ("offset", "2147483648"),
        ("order_by", "species"),
        ("owner_id", "0"),
        ("owner_id", "2147483648"),
        ("born_from", "2020-1-1"),
        ("born_from", "1577836800"),
        ("born_until", "2020-01-01T00:00:00"),
        ("changed_since", "2020-01-01"),
        ("changed_since", "1577836800"),
        ("changed_since", "T"),
        ("archived", "both"),
        ("ownerless", "perhaps"),
        ("sex", "both"),
        ("status", ""),
        ("name_prefix", ""),
        ("name_contains", "x" * 101),
        ("after", "x" * 5000),
        ("nmae", "x"),
    ],
)
def test_a_value_that_is_not_one_of_the_parameter_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as refused:
        PetQuery.model_validate({name: value})

    [error] = refused.value.errors()
    assert error["loc"] == (name,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name_prefix", "\x00"),
        ("name_prefix", " "),
        ("changed_since", "2020-01-01T00:00:00"),
        ("species", " "),
        ("breed", "a\nb"),
    ],
)
async def test_what_only_the_service_refuses_is_told_of_the_parameter(
    client: httpx.AsyncClient, name: str, value: str
) -> None:
    assert problem_of(await client.get("/pets", params={name: value})) == (422, "invalid_request", name)


def test_every_order_of_a_list_may_be_asked_for() -> None:
    for order_by in get_args(OrderBy):
        assert PetQuery.model_validate({"order_by": order_by}).order_by == order_by


async def test_a_page_has_one_start(client: httpx.AsyncClient) -> None:
    answer = await client.get("/pets", params={"after": "x", "offset": 1})

    assert problem_of(answer) == (422, "invalid_request", None)


async def test_an_endpoint_of_an_application_takes_a_query(client: httpx.AsyncClient, db: Database) -> None:
    app = FastAPI()

    @app.get("/cats", response_model=PagePublic[PetPublic])
    async def cats(query: Annotated[PetQuery, Query()], session: Annotated[Any, reading_dependency(db)]) -> Any:
        return await list_pets(session, **query.model_dump() | {"species": "cat"})

    for name, species in (("Mia", "cat"), ("Rex", "dog"), ("Tom", "cat")):
        await created(client, "/pets", name=name, species=species)
    async with client_of(app) as own:
        page = PagePublic[PetPublic].model_validate_json((await own.get("/cats", params={"limit": 1})).content)

    assert [pet.name for pet in page.items] == ["Mia"]
    assert page.next is not None
