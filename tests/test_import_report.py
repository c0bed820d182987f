"""What an import says that it did."""

import pytest

from sqlmodel_alembic_async import ImportReport, Rejection


def rejecting(number: int) -> ImportReport:
    report = ImportReport(created=1_234, updated=2, unchanged=3, rejected=number)
    for line in range(number):
        report.reject(line, "ZIP", "981", "must be longer" if line % 3 else "must be known")
    return report


@pytest.mark.parametrize(
    ("rejection", "text"),
    [
        (Rejection(7, "ZIP", "981", "must be longer"), "line 7, ZIP: '981' must be longer"),
        (Rejection(7, "ZIP", None, "must be given"), "line 7, ZIP: must be given"),
        (Rejection(7, None, None, "must be read"), "line 7: must be read"),
        (Rejection(7, None, "981", "must be known"), "line 7: '981' must be known"),
    ],
)
def test_a_rejection_says_where_and_why(rejection: Rejection, text: str) -> None:
    assert str(rejection) == text


def test_a_report_counts_with_separators_and_says_that_it_was_a_rehearsal() -> None:
    report = rejecting(0)
    assert str(report) == "1,234 created, 2 updated, 3 unchanged, 0 rejected"
    assert report.rows == 1_239

    report.dry_run = True
    assert str(report) == "1,234 created, 2 updated, 3 unchanged, 0 rejected (dry run: nothing was written)"


def test_a_report_warns_of_pets_that_a_second_import_would_create_again() -> None:
    report = ImportReport(created=2_000, without_key=1_000)

    assert str(report).splitlines()[1:] == [
        "  1,000 created without external_ref or microchip: another import of this file would create them again"
    ]


def test_twenty_rejections_are_all_shown() -> None:
    lines = str(rejecting(20)).splitlines()

    assert len(lines) == 21
    assert lines[1] == "  line 0, ZIP: '981' must be known"
    assert lines[20] == "  line 19, ZIP: '981' must be longer"


def test_of_more_rejections_the_reasons_are_counted_the_most_frequent_first() -> None:
    lines = str(rejecting(21)).splitlines()

    assert lines[20] == "  line 19, ZIP: '981' must be longer"
    assert lines[21:] == ["  and 1 more", "  14 times: must be longer", "  7 times: must be known"]


def test_many_rejections_are_counted_with_separators() -> None:
    lines = str(rejecting(3_020)).splitlines()

    assert lines[21:] == ["  and 3,000 more", "  2,013 times: must be longer", "  1,007 times: must be known"]


def test_of_many_reasons_twenty_are_shown() -> None:
    report = ImportReport()
    for line in range(60):
        report.reject(line, None, None, f"reason {line % 30}")

    assert len(str(report).splitlines()) == 1 + 20 + 1 + 20
    assert report.reasons["reason 29"] == 2


def test_the_repr_of_a_report_quotes_no_row() -> None:
    assert "981" not in repr(rejecting(3))


@pytest.mark.parametrize("outcome", ["created", "updated", "unchanged"])
def test_a_row_that_was_taken_is_counted(outcome: str) -> None:
    report = ImportReport()

    report.count(outcome)
    report.count(outcome)

    assert (getattr(report, outcome), report.rows) == (2, 2)


def test_a_rejection_is_not_changed_afterwards() -> None:
    with pytest.raises(AttributeError):
        Rejection(7, None, None, "x").line = 8  # type: ignore[misc]
