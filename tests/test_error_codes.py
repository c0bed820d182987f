"""The codes of each kind; tests/test_driver_errors.py has the error of each code."""

import sqlite3
from itertools import combinations

import pytest

from sqlmodel_alembic_async import error_codes

KINDS = {name: set(codes) for name, codes in vars(error_codes).items() if name.isupper()}


def test_no_code_is_of_two_kinds() -> None:
    both = {(one, other): KINDS[one] & KINDS[other] for one, other in combinations(KINDS, 2)}

    assert len(KINDS) > 10
    assert {pair for pair, codes in both.items() if codes} == set()


@pytest.mark.parametrize("name", sorted(code for codes in KINDS.values() for code in codes if "SQLITE" in str(code)))
def test_sqlite_has_each_error_that_is_named(name: str) -> None:
    assert isinstance(getattr(sqlite3, name), int)


def test_the_primary_code_of_an_extended_one_is_its_beginning() -> None:
    assert error_codes.primary_code("SQLITE_READONLY_DBMOVED") == "SQLITE_READONLY"
    assert error_codes.primary_code("SQLITE_FULL") == "SQLITE_FULL"
