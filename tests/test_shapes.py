"""The shapes, and the fields of the rows."""

import inspect
import re
from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError
from sqlmodel import SQLModel

from sqlmodel_alembic_async import (
    PetCreate,
    PetUpdate,
    UserCreate,
    UserUpdate,
)
from sqlmodel_alembic_async.shapes import PetRow, UserRow


@pytest.mark.parametrize("shape", [UserCreate, UserUpdate, PetCreate, PetUpdate])
@pytest.mark.parametrize("field", ["id", "version", "archived_at", "created_at", "updated_at", "name_key", "nmae"])
def test_a_shape_refuses_unknown_fields(shape: type, field: str) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        shape(**{"name": "Rex", field: 1})


@pytest.mark.parametrize("shape", [UserUpdate, PetUpdate])
def test_a_field_that_is_not_null_refuses_none(shape: type) -> None:
    with pytest.raises(ValidationError):
        shape(name=None)


@pytest.mark.parametrize("field", ["sex", "status", "birth_date_estimated"])
def test_a_pet_field_that_is_not_null_refuses_none(field: str) -> None:
    with pytest.raises(ValidationError):
        PetUpdate(**{field: None})


@pytest.mark.parametrize(
    "values",
    [
        {"birth_date_estimated": True},
        {"deceased_on": date(2020, 1, 1)},
        {"deceased_on": date(2020, 1, 1), "status": "deceased", "birth_date": date(2020, 1, 2)},
        {"acquired_on": date(2020, 1, 1)},
    ],
)
def test_fields_that_contradict_each_other_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PetCreate(name="Rex", **values)


@pytest.mark.parametrize(
    "values",
    [
        {"birth_date_estimated": True, "birth_date": None},
        {"deceased_on": date(2020, 1, 1), "status": "missing"},
        {"deceased_on": date(2020, 1, 1), "birth_date": date(2020, 1, 2)},
    ],
)
def test_changes_that_contradict_each_other_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PetUpdate(**values)


def test_changes_that_only_the_row_can_contradict_are_accepted() -> None:
    assert PetUpdate(deceased_on=date(2020, 1, 1)).model_fields_set == {"deceased_on"}


def test_an_error_does_not_quote_the_value() -> None:
    with pytest.raises(ValidationError) as caught:
        UserCreate(name="Ada", email="ada-at-home")

    assert "ada-at-home" not in str(caught.value)


def test_a_pet_may_die_on_the_day_of_its_birth() -> None:
    day = date(2020, 1, 1)

    assert PetCreate(name="Rex", status="deceased", birth_date=day, deceased_on=day).deceased_on == day
    assert PetUpdate(birth_date=day, deceased_on=day).deceased_on == day


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"birth_date_estimated": True}, "birth_date_estimated needs a birth_date"),
        ({"deceased_on": date(2020, 1, 1)}, "deceased_on needs the status deceased"),
        (
            {"deceased_on": date(2020, 1, 1), "status": "deceased", "birth_date": date(2020, 1, 2)},
            "deceased_on must not be before birth_date",
        ),
        ({"acquired_on": date(2020, 1, 1)}, "acquired_on needs an owner_id"),
    ],
)
def test_a_contradiction_says_what_is_wrong(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PetCreate(name="Rex", **values)


@pytest.mark.parametrize("shape", [UserCreate, UserUpdate, PetCreate, PetUpdate, UserRow, PetRow])
def test_no_shape_quotes_a_value_in_its_error(shape: type[SQLModel]) -> None:
    with pytest.raises(ValidationError) as caught:
        shape.model_validate({"name": "secret\0", "nmae": "secret"})

    assert "Extra inputs are not permitted" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_name_is_enough_for_a_shape() -> None:
    nothing = ("email", "phone", "address", "city", "postal_code", "notes", "external_ref")
    unknown = ("owner_id", "species", "breed", "color", "neutered", "birth_date", "weight_g", "microchip")
    unknown += ("deceased_on", "acquired_on", "notes", "external_ref")
    declared = {"sex": "unknown", "birth_date_estimated": False, "status": "active"}

    assert UserCreate(name="Ada").model_dump() == {"name": "Ada", **dict.fromkeys(nothing)}
    assert PetCreate(name="Rex").model_dump() == {"name": "Rex", **dict.fromkeys(unknown), **declared}


def test_nothing_need_be_changed() -> None:
    assert (UserUpdate().model_fields_set, PetUpdate().model_fields_set) == (set(), set())


def test_fields_that_agree_are_accepted() -> None:
    born, died = date(2020, 1, 1), date(2021, 1, 1)
    values = {"birth_date": born, "birth_date_estimated": True, "status": "deceased", "deceased_on": died}

    pet = PetCreate(name="Rex", owner_id=7, acquired_on=born, **values)
    changes = PetUpdate(**values)

    assert values.items() <= pet.model_dump().items()
    assert changes.model_dump(exclude_unset=True) == values
    assert PetUpdate(birth_date_estimated=True).model_fields_set == {"birth_date_estimated"}


@pytest.mark.parametrize("shape", [UserCreate, UserUpdate, PetCreate, PetUpdate])
def test_a_signature_shows_plain_types(shape: type[Any]) -> None:
    parameters = inspect.signature(shape).parameters

    assert list(parameters) == list(shape.model_fields)
    assert "Metadata" not in str(parameters.values())
    assert parameters["notes"].annotation == str | None
    shown = "None" if shape.__name__.endswith("Create") else "<unchanged>"
    assert repr(parameters["notes"].default) == shown
    assert "Optional" not in str(inspect.signature(shape))
    assert (parameters["name"].default is inspect.Parameter.empty) == shape.__name__.endswith("Create")


@pytest.mark.parametrize("shape", [UserCreate, PetCreate])
def test_the_docstring_of_a_shape_explains_every_field(shape: type[Any]) -> None:
    explained = re.findall(r"^ +([a-z_]+): ", str(shape.__doc__), flags=re.MULTILINE)

    assert explained == list(shape.model_fields)


OF_THE_OWNER = ("owner_id", "acquired_on")


@pytest.mark.parametrize(("create", "update"), [(UserCreate, UserUpdate), (PetCreate, PetUpdate)])
def test_an_update_takes_the_fields_of_a_create_but_for_the_owner(create: type[Any], update: type[Any]) -> None:
    assert list(update.model_fields) == [
        name for name in create.model_fields if name not in ("owner_id", "acquired_on")
    ]
    assert not any(field.is_required() for field in update.model_fields.values())
