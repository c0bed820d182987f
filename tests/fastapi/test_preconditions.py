import re

import pytest

from sqlmodel_alembic_async import User
from sqlmodel_alembic_async.fastapi import preconditions
from sqlmodel_alembic_async.fastapi.problems import ProblemError

ROW = User(name="Ada", version=3)


@pytest.mark.parametrize(
    ("header", "versions"),
    [
        (None, None),
        ("*", None),
        (" * ", None),
        ('"3"', [3]),
        (' "3" ', [3]),
        ('"3","4"', [3, 4]),
        ('"3" ,\t"4"', [3, 4]),
        ('W/"3"', []),
        ('W/"3", "4"', [4]),
        ('"03"', []),
        ('"0"', []),
        ('"-3"', []),
        ('"3,4"', []),
        ('""', []),
        ('"99999999999"', []),
    ],
)
def test_if_match_names_versions(header: str | None, versions: list[int] | None) -> None:
    assert preconditions._expected_versions(header) == versions


@pytest.mark.parametrize(
    "header", ["", "3", '"3', '3"', 'w/"3"', '"3" "4"', '"3",', ",", '"3", *', "**", '"a b"', '"é"', "null"]
)
@pytest.mark.parametrize("read", [preconditions._expected_versions, lambda text: preconditions.is_current(text, ROW)])
def test_a_malformed_header_is_refused(header: str, read: object) -> None:
    with pytest.raises(ProblemError, match="must be an ETag in quotes") as refused:
        read(header)  # type: ignore[operator]
    assert (refused.value.problem["status"], refused.value.problem["code"]) == (400, "malformed_header")
    # What the schema promises is what is accepted.
    assert not re.search(preconditions._TEXT.json_schema["pattern"], header)  # type: ignore[index]


@pytest.mark.parametrize(
    ("header", "is_current"),
    [(None, False), ("*", True), ('"3"', True), ('W/"3"', True), ('"1", W/"3"', True), ('"1"', False), ('"33"', False)],
)
def test_if_none_match_names_the_version_that_the_client_has(header: str | None, is_current: bool) -> None:
    assert preconditions.is_current(header, ROW) is is_current


def test_a_long_header_is_read_in_linear_time() -> None:
    tags = ",".join(['"x"'] * 20_000)

    assert preconditions._expected_versions(tags) == []
    with pytest.raises(ProblemError):
        preconditions._expected_versions(tags + "!")
