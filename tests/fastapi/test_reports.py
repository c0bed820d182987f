from sqlmodel_alembic_async import ImportReport
from sqlmodel_alembic_async.fastapi.reports import ImportReportPublic, public_report


def test_a_report_shows_the_first_thousand_rejections_and_counts_all() -> None:
    report = ImportReport(created=2, rejected=1200)
    for line in range(1200):
        report.reject(line + 2, "name", "secret", "must not be blank")

    shown = ImportReportPublic.model_validate(public_report(report))

    assert (len(shown.rejections), shown.rejected, shown.created) == (1000, 1200, 2)
    assert shown.reasons == {"must not be blank": 1200}
    assert "secret" not in shown.model_dump_json()


def test_a_column_is_named_if_it_is_a_field_or_was_mapped() -> None:
    report = ImportReport()
    for column in ("name", "Pet Name", "secret", None):
        report.reject(2, column, "x", "is wrong")

    columns = [each["column"] for each in public_report(report, ["Pet Name"])["rejections"]]

    assert columns == ["name", "Pet Name", None, None]
