"""The errors: their family, what they say, and what they hold."""

import pickle
import re

import pytest

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    ImportRejectedError,
    ImportReport,
    InvalidValueError,
    PetDeceasedError,
    PetManagementError,
    PetNotFoundError,
    SimilarExistsError,
    StaleVersionError,
    StorageError,
    UserHasPetsError,
    UserNotFoundError,
    errors,
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


def drawn() -> dict[str, tuple[str, ...]]:
    """Return the errors that the module draws, each with those it is one of."""
    family: dict[str, tuple[str, ...]] = {}
    line_of_descent: list[str] = []
    for line in str(errors.__doc__).splitlines():
        if match := re.match(r"([ │├└─]*)(\w+Error)\b(?: \((\w+)\))?", line):
            indent, name, builtin = match.groups()
            del line_of_descent[len(indent) // 4 :]
            family[name] = (*line_of_descent[-1:], *filter(None, [builtin]))
            line_of_descent.append(name)
    return family


def test_the_family_is_as_it_is_drawn() -> None:
    classes = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    there = {name: value for name, value in classes.items() if value.__module__ == errors.__name__}
    bases = {name: tuple(base.__name__ for base in value.__bases__) for name, value in there.items()}

    assert drawn() == bases | {"PetManagementError": ()}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UserNotFoundError(7), "no user with id 7"),
        (PetNotFoundError(None), "no such pet"),
        (AlreadyExistsError("email"), "another row already has this email"),
        (UserHasPetsError(7), 'user 7 still has pets: transfer them, or delete with pets="release"'),
        (StaleVersionError(3), "the row changed since version 3: reload it"),
        (InvalidValueError("name"), "the value does not fit name"),
        (InvalidValueError(constraint="ck_pet_sex"), "the values violate the constraint ck_pet_sex"),
    ],
)
def test_an_error_says_which_row_field_or_rule_it_is_about(error: PetManagementError, text: str) -> None:
    assert str(error) == text


def test_ten_similar_rows_are_named_and_all_are_held() -> None:
    ten, eleven = SimilarExistsError(range(1, 11)), SimilarExistsError(range(1, 12))

    assert "(id 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)" in str(ten)
    assert "(id 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …)" in str(eleven)
    assert eleven.ids == list(range(1, 12))


def test_a_rejected_import_says_how_much_of_it_and_where_it_begins() -> None:
    report = ImportReport(created=1, rejected=2)
    report.reject(3, "sex", "secret", "must be male, female or unknown")
    report.reject(4, None, None, "has too few cells")

    error = pickle.loads(pickle.dumps(ImportRejectedError(report)))

    assert error.report == report
    assert str(error) == (
        "nothing was imported: 2 of 3 rows are rejected, the first one in line 3, sex: must be male, female or unknown"
    )


def test_a_rejected_file_of_which_no_row_was_read_says_why() -> None:
    report = ImportReport()
    report.reject(1, None, None, "the line is blank")

    assert str(ImportRejectedError(report)) == "nothing was imported: line 1: the line is blank"
