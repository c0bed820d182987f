"""What an upsert changes, and what it leaves."""

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from sqlmodel_alembic_async import PetCreate, PetDeceasedError, UserCreate
from sqlmodel_alembic_async.services.statements.column_values import new_values
from sqlmodel_alembic_async.services.statements.upsert_plans import changes_of, given_values, plan


def stored(**values: Any) -> dict[str, Any]:
    return {**new_values(PetCreate(name="Rex", external_ref="S1", **values)), "id": 7, "archived_at": None}


def test_what_is_given_is_what_was_set_and_is_not_none() -> None:
    row = given_values(
        "external_ref", PetCreate(name=" Rex", external_ref="S1 ", species=None, breed=" ", sex="unknown")
    )

    assert row.key == "S1"
    assert row.given == {"name": "Rex", "external_ref": "S1", "sex": "unknown"}
    assert row.all_values.keys() == PetCreate.model_fields.keys()


def test_a_shape_that_was_changed_is_validated_again() -> None:
    changed = UserCreate(name="Ada", external_ref="S1").model_copy(update={"email": "ADA@example.com"})
    assert given_values("email", changed).key == "ada@example.com"
    with pytest.raises(ValidationError):
        given_values("external_ref", changed.model_copy(update={"name": ""}))
    with pytest.raises(ValueError, match="has no external_ref"):
        given_values("external_ref", UserCreate(name="Ada", external_ref=" "))


def test_only_differences_are_changes() -> None:
    assert changes_of(stored(species="dog"), {"name": "Rex", "species": "dog", "external_ref": "S1"}) == {}
    assert changes_of(stored(), {"name": "Max", "color": "red"}) == {"name": "Max", "name_key": "max", "color": "red"}


def test_an_owner_who_stays_keeps_the_day() -> None:
    known = stored(owner_id=1, acquired_on=date(2020, 2, 2), status="deceased")

    assert changes_of(known, {"owner_id": 1}) == {}
    assert changes_of(known, {"owner_id": 1, "acquired_on": date(2020, 3, 3)}) == {"acquired_on": date(2020, 3, 3)}
    with pytest.raises(PetDeceasedError):
        changes_of(known, {"owner_id": 2})


def test_a_plan_for_nothing_new_writes_nothing() -> None:
    row = given_values("external_ref", PetCreate(name="Rex", external_ref="S1"))

    same = plan(stored(), [row, row])
    assert (same.outcomes, same.values, same.changed) == (["unchanged", "unchanged"], None, set())
    created = plan(None, [row, row])
    assert created.outcomes == ["created", "unchanged"]
    assert created.values is not None
    assert "id" not in created.values
    red = given_values("external_ref", PetCreate(name="Rex", external_ref="S1", color="red"))
    updated = plan(stored(), [row, red])
    assert (updated.outcomes, updated.changed) == (["unchanged", "updated"], {"color"})
    assert updated.values is not None
    assert updated.values["version"] == 2
