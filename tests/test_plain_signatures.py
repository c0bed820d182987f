"""Signatures show what may be passed, and IPython completes it."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from IPython.core.completer import IPCompleter, provisionalcompleter

import sqlmodel_alembic_async as package
from sqlmodel_alembic_async import (
    Pet,
    PetFilters,
    User,
    UserFilters,
    count_pets,
    count_users,
    export_pets,
    list_pets,
    list_users,
    pet_statistics,
    stream_pets,
    stream_users,
)


@pytest.mark.parametrize(
    ("service", "filters"),
    [
        (list_users, UserFilters),
        (count_users, UserFilters),
        (stream_users, UserFilters),
        (list_pets, PetFilters),
        (count_pets, PetFilters),
        (stream_pets, PetFilters),
        (export_pets, PetFilters),
        (pet_statistics, PetFilters),
    ],
)
def test_a_signature_spells_out_the_filters(service: Callable[..., Any], filters: type[Any]) -> None:
    parameters = inspect.signature(service).parameters

    assert list(parameters)[-len(filters.__annotations__) :] == list(filters.__annotations__)
    assert {parameters[name].kind for name in filters.__annotations__} == {inspect.Parameter.KEYWORD_ONLY}
    assert parameters["archived"].default is False
    assert parameters["name_prefix"].default is None
    assert "Annotated" not in str(inspect.signature(service))


def test_every_service_with_filters_spells_them_out() -> None:
    services = [value for name in package.__all__ if inspect.isfunction(value := getattr(package, name))]
    kinds = {parameter.kind for service in services for parameter in inspect.signature(service).parameters.values()}

    assert inspect.Parameter.VAR_KEYWORD not in kinds


@pytest.mark.parametrize("is_complete", [False, True])
def test_a_row_shows_its_fields_and_what_is_related(is_complete: bool) -> None:
    if is_complete:
        User.model_rebuild()  # pydantic builds it when it is first used, and sets its signature then.
        Pet.model_rebuild()
    user, pet = (inspect.signature(table).parameters for table in (User, Pet))

    assert list(user)[:3] == ["id", "name", "email"]
    assert [user["id"].annotation, user["id"].default] == [int | None, None]
    assert [user["pets"].annotation, user["pets"].default] == [list[Pet], []]
    assert [pet["owner"].annotation, pet["owner"].default] == [User | None, None]
    assert pet["name"].default is inspect.Parameter.empty
    assert "version" not in pet


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("await list_pets(session, sp", "species="),
        ("count_users(session, arch", "archived="),
        ("await pet_statistics(session, born", "born_from="),
        ("PetCreate(micro", "microchip="),
        ("Pet(own", "owner="),
    ],
)
def test_ipython_completes_parameters(typed: str, completed: str) -> None:
    names = {name: getattr(package, name) for name in package.__all__ if name != "engine"}
    completer = IPCompleter(namespace=names, use_jedi=False)

    with provisionalcompleter():
        assert completed in [found.text for found in completer.completions(typed, len(typed))]
