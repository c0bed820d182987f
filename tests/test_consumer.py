"""The program of somebody who uses the package does what it says."""

from sqlalchemy.engine import URL

from .consumer import main


async def test_a_consumers_program_runs_on_every_engine(empty_url: URL) -> None:
    shown = await main(empty_url.render_as_string(hide_password=False))

    found = ["Rex", "4200", "Rex", "Max", "Leo", "Leo"]
    described = ["3", "Destron Fearing"]
    alike = ["1", "microchip", "name_and_microchip", "9"]
    merged = ["city", "Ada", "breed", "Rex", "1", "Kit", "created", "Anonymised"]
    assert shown == [*found, *described, "Ada", "Rex", "1", "1", "1000000000", *alike, "missing", *merged]
