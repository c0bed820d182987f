"""What a microchip's number tells."""

import pytest
from pydantic import TypeAdapter, ValidationError

from sqlmodel_alembic_async import MicrochipDescription, describe_microchip
from sqlmodel_alembic_async.fields import Microchip
from sqlmodel_alembic_async.microchips import _MANUFACTURERS, _countries


def test_a_manufacturer_is_named() -> None:
    assert describe_microchip("985-112.000*123 456") == MicrochipDescription(
        number="985112000123456",
        printed="985 112 000 123 456",
        standard="ISO 11784",
        kind="manufacturer",
        code="985",
        issuer="Destron Fearing",
        explanation="manufacturer code 985: Destron Fearing",
    )


@pytest.mark.parametrize(
    ("code", "country"),
    [("004", "Afghanistan"), ("040", "Austria"), ("276", "Germany"), ("528", "Netherlands"), ("894", "Zambia")],
)
def test_a_country_is_named(code: str, country: str) -> None:
    found = describe_microchip(f"{code}098100111917")

    assert (found.kind, found.code, found.issuer) == ("country", code, country)
    assert found.explanation == f"country code {code}: {country}"


@pytest.mark.parametrize(
    ("code", "kind", "explanation"),
    [
        ("000", "unknown", "000 is not assigned to a country or manufacturer"),
        ("001", "country", "country code 001: not in ISO 3166-1"),
        ("899", "country", "country code 899: not in ISO 3166-1"),
        ("900", "manufacturer", "manufacturer code 900: shared by many manufacturers"),
        ("901", "manufacturer", "manufacturer code 901: not in the list of this library"),
        ("998", "manufacturer", "manufacturer code 998: not in the list of this library"),
    ],
)
def test_a_code_that_is_not_known_says_so(code: str, kind: str, explanation: str) -> None:
    found = describe_microchip(f"{code}000000000001")

    assert (found.kind, found.code, found.issuer, found.explanation) == (kind, code, None, explanation)


@pytest.mark.parametrize(
    ("chip", "number", "printed", "standard"),
    [
        ("012*345*678", "012345678", "012 345 678", "older, 9 digits"),
        ("0a12-3b5678", "0A123B5678", "0A 123B 5678", "older, 10 letters and digits"),
    ],
)
def test_an_older_number_names_no_issuer(chip: str, number: str, printed: str, standard: str) -> None:
    found = describe_microchip(chip)

    assert (found.number, found.printed, found.standard) == (number, printed, standard)
    assert (found.kind, found.code, found.issuer) == ("unknown", None, None)
    assert found.explanation == "older number without an issuer code"


@pytest.mark.parametrize("chip", ["985112000123456", "012345678", "0A12345678"])
def test_the_spelling_for_print_is_read_back(chip: str) -> None:
    assert TypeAdapter(Microchip).validate_python(describe_microchip(chip).printed) == chip


@pytest.mark.parametrize(
    "chip", ["", " ", "98514100012345", "999141000123456", "985274877906944", 985141000123456, None]
)
def test_what_is_no_number_of_a_chip_is_refused(chip: str) -> None:
    with pytest.raises(ValidationError) as caught:
        describe_microchip(chip)

    assert "98514" not in str(caught.value)


def test_the_lists_hold_codes_of_their_own_ranges() -> None:
    countries = _countries()

    assert len(countries) == 249
    assert list(countries) == sorted(countries)
    assert all(len(code) == 3 and "001" <= code <= "899" for code in countries)
    assert all(name and name == name.strip() and not any(map(str.isdigit, name)) for name in countries.values())
    assert len(set(countries.values())) == 249
    assert all("901" <= code <= "998" for code in _MANUFACTURERS)


@pytest.mark.parametrize(
    ("code", "maker"),
    [
        ("934", "Tierchip Dasmann"),
        ("956", "Trovan"),
        ("968", "AEG"),
        ("972", "Planet ID"),
        ("977", "Avid"),
        ("981", "Datamars"),
        ("982", "Allflex"),
        ("985", "Destron Fearing"),
    ],
)
def test_every_maker_that_is_known_is_named(code: str, maker: str) -> None:
    found = describe_microchip(f"{code}000000000001")

    assert (found.kind, found.issuer) == ("manufacturer", maker)
    assert found.explanation == f"manufacturer code {code}: {maker}"
