import pytest
from pydantic import ValidationError

from sqlmodel_alembic_async import PetCreate, PetNotFoundError
from sqlmodel_alembic_async.fastapi.bodies import Merge, Ownership
from sqlmodel_alembic_async.fastapi.problems import ProblemError


def test_an_owner_is_given_even_if_it_is_none() -> None:
    assert Ownership.model_validate({"owner_id": None}).owner_id is None
    with pytest.raises(ValidationError, match="owner_id"):
        Ownership.model_validate({})


@pytest.mark.parametrize(
    "values", [{"drop_id": "1"}, {"drop_id": 0}, {"drop_id": 1, "dry_run": 1}, {"drop_id": 1, "x": 1}]
)
def test_a_merge_takes_no_other_values(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Merge.model_validate(values)


def test_a_row_is_not_merged_with_itself() -> None:
    with pytest.raises(ProblemError, match="drop_id"), Merge(drop_id=1).references(1):
        pass


def test_the_row_that_is_missing_is_the_one_of_the_path_or_of_the_body() -> None:
    with pytest.raises(PetNotFoundError), Merge(drop_id=2).references(1):
        raise PetNotFoundError(1)
    with pytest.raises(ProblemError) as refused, Merge(drop_id=2).references(1):
        raise PetNotFoundError(2)
    assert (refused.value.problem["status"], refused.value.problem["field"]) == (422, "drop_id")


def test_stored_values_that_are_not_valid_are_no_fault_of_the_request() -> None:
    with pytest.raises(ProblemError, match="stored values") as refused, Merge(drop_id=2).references(1):
        PetCreate.model_validate({"name": ""})
    assert refused.value.problem["status"] == 409
