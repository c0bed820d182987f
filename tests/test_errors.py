"""The errors: their family, what they say, and what they hold."""

import pickle

import pytest

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    InvalidValueError,
    PetDeceasedError,
    PetManagementError,
    PetNotFoundError,
    SimilarExistsError,
    StaleVersionError,
    StorageError,
    UserHasPetsError,
    UserNotFoundError,
)

ERRORS: list[PetManagementError] = [
    UserNotFoundError(7),
    PetNotFoundError(None),
    AlreadyExistsError("email"),
    SimilarExistsError([7, 8], []),
    SimilarExistsError(range(1, 100)),
    UserHasPetsError(7),
    UserHasPetsError(None),
    StaleVersionError(3),
    StaleVersionError(None),
    PetDeceasedError(7),
    InvalidValueError(field="name"),
    InvalidValueError(constraint="ck_pet_sex"),
    InvalidValueError(),
    StorageError("full"),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_an_error_survives_pickling_and_reads_as_a_sentence(error: PetManagementError) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), vars(copy), str(copy)) == (type(error), vars(error), str(error))
    assert str(error)
    assert "None" not in str(error)
