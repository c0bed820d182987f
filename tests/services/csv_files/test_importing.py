"""Imports: what rows become, what they match, and what is rejected."""

import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pexpect
import pytest

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    ImportRejectedError,
    PetCreate,
    StorageError,
    UserCreate,
    count_pets,
    count_users,
    create_pet,
    create_user,
    find_user_by_email,
    import_pets,
)
from sqlmodel_alembic_async.services.csv_files import file_format

from .imports import CHIPS, cancel_half_way, counts, pets_of, rejected, rows, users_of


async def test_a_row_becomes_a_pet_and_its_owner(session: AsyncSession) -> None:
    report = await import_pets(
        session,
        rows(
            "name,species,breed,color,sex,neutered,birth_date,birth_date_estimated,weight_g,microchip,status,deceased_on,"
            "acquired_on,notes,external_ref,owner_name,owner_email,owner_phone,owner_address,owner_city,"
            "owner_postal_code,owner_notes,owner_external_ref",
            "Rex,Dog,Beagle,Brown,M,yes,2014-05-01,no,9500,276 098 102 345 678,Deceased,2024-01-02,2015-01-01,"
            "good,p1,Ada,ADA@example.com,030 12345,Main St 1,Berlin,10115,kind,u1",
        ),
    )

    assert counts(report) == (1, 0, 0, 0)
    ada = await find_user_by_email(session, "ada@example.com")
    assert ada is not None
    assert (ada.name, ada.phone, ada.address, ada.city) == ("Ada", "030 12345", "Main St 1", "Berlin")
    assert (ada.postal_code, ada.notes, ada.external_ref, ada.version) == ("10115", "kind", "u1", 1)
    rex = (await pets_of(session))[0]
    assert (rex.name, rex.species, rex.breed, rex.color, rex.sex) == ("Rex", "dog", "Beagle", "Brown", "male")
    assert (rex.neutered, rex.birth_date, rex.birth_date_estimated) == (True, date(2014, 5, 1), False)
    assert (rex.weight_g, rex.microchip, rex.status) == (9500, "276098102345678", "deceased")
    assert (rex.deceased_on, rex.acquired_on, rex.owner_id) == (date(2024, 1, 2), date(2015, 1, 1), ada.id)
    assert (rex.notes, rex.external_ref, rex.version, rex.name_key) == ("good", "p1", 1, "rex")


async def test_either_half_of_a_row_may_be_blank(session: AsyncSession) -> None:
    report = await import_pets(session, rows("name,owner_name", "Rex,", ",Ada", "Tom,Bob"))

    assert counts(report) == (3, 0, 0, 0)
    assert [(pet.name, pet.owner_id is None) for pet in await pets_of(session)] == [("Rex", True), ("Tom", False)]
    assert [user.name for user in await users_of(session)] == ["Ada", "Bob"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"placeholder_names": "drop"}, "placeholder_names"),
        ({"date_format": "%d/%m"}, "date_format"),
        ({"date_format": "%B %Y"}, "date_format"),
        ({"date_format": "%Q"}, "date_format"),
        ({"date_format": "%Y-%m-%d %q"}, "date_format"),
        ({"date_format": "%Y-%m-%d %Y"}, "date_format"),
        ({"date_format": "dd.mm.yyyy"}, "date_format"),
    ],
)
async def test_an_option_that_says_nothing_clear_is_refused(options: dict[str, Any], message: str) -> None:
    nobody: Any = None

    with pytest.raises(ValueError, match=message):
        await import_pets(nobody, rows("name", "Rex"), **options)


async def test_the_same_keyed_file_again_changes_nothing(session: AsyncSession) -> None:
    lines = (
        "name,species,microchip,external_ref,weight_g,birth_date,owner_name,owner_email,owner_external_ref",
        f"Rex,dog,{CHIPS[0]},,9500,2014,Ada,ada@example.com,",
        "Tom,cat,,p2,,,Ada,ada@example.com,",
        ",,,,,,Bob,,u2",
        f"Max,dog,{CHIPS[1]},p3,,,Eve,,",
    )
    await import_pets(session, rows(*lines))
    before = (
        [pet.model_dump() for pet in await pets_of(session)],
        [user.model_dump() for user in await users_of(session)],
    )

    report = await import_pets(session, rows(*lines))

    assert counts(report) == (0, 0, 4, 0)
    after = (
        [pet.model_dump() for pet in await pets_of(session)],
        [user.model_dump() for user in await users_of(session)],
    )
    assert after == before


async def test_any_rejection_means_that_nothing_is_written(db: Database) -> None:
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Before", external_ref="p1"))
        with pytest.raises(ImportRejectedError) as caught:
            await import_pets(session, rows("name,external_ref,owner_name", "Rex,,Ada", "After,p1,", "-,,"))
        await create_user(session, UserCreate(name="Bob"))

    async with db.reading() as session:
        assert [(pet.name, pet.version) for pet in await pets_of(session)] == [("Before", 1)]
        assert [user.name for user in await users_of(session)] == ["Bob"]
    assert counts(caught.value.report) == (1, 1, 0, 1)
    assert str(caught.value) == (
        "nothing was imported: 1 of 3 rows are rejected, the first one in line 4, name: "
        'is a placeholder, not a name: pass placeholder_names="keep" to accept it'
    )


async def test_a_dry_run_reports_the_same_and_writes_nothing(db: Database) -> None:
    lines = ("name,external_ref,owner_name", "Rex,,Ada", "After,p1,", "-,,", "Same,p2,")
    async with db.transaction() as session:
        before = await create_pet(session, PetCreate(name="Before", external_ref="p1"))
        await create_pet(session, PetCreate(name="Same", external_ref="p2"))

        dry = await import_pets(session, rows(*lines), keep_going=True, dry_run=True)

        assert before.name == "Before"
        assert [(pet.name, pet.version) for pet in await pets_of(session)] == [("Before", 1), ("Same", 1)]
        assert await count_users(session) == 0
        wet = await import_pets(session, rows(*lines), keep_going=True)

    assert (dry.dry_run, wet.dry_run) == (True, False)
    assert counts(dry) == counts(wet) == (1, 1, 1, 1)
    assert dry.rejections == wet.rejections
    assert dry.rows == 4


async def test_a_report_reads_well(session: AsyncSession) -> None:
    report = await import_pets(
        session, rows("name,species", "Rex,dog", *["-,dog"] * 22, f"Max,{'x' * 51}"), keep_going=True, dry_run=True
    )

    lines = str(report).splitlines()
    assert lines[0] == "1 created, 0 updated, 0 unchanged, 23 rejected (dry run: nothing was written)"
    assert (
        lines[1] == "  1 created without external_ref or microchip: another import of this file would create them again"
    )
    assert lines[2] == "  line 3, name: '-' is a placeholder, not a name: pass placeholder_names=\"keep\" to accept it"
    assert lines[22:] == [
        "  and 3 more",
        '  22 times: is a placeholder, not a name: pass placeholder_names="keep" to accept it',
        "  1 times: must have at most 50 characters",
    ]
    assert report.reasons == Counter(
        {
            'is a placeholder, not a name: pass placeholder_names="keep" to accept it': 22,
            "must have at most 50 characters": 1,
        }
    )


async def test_a_report_of_many_reasons_stays_short(session: AsyncSession) -> None:
    lines = [f"Rex,p{number % 100}" for number in range(200)]

    report = await rejected(session, "name,external_ref", *lines)

    assert len(str(report).splitlines()) < 50


async def test_the_repr_of_a_rejection_holds_no_value_of_a_row(session: AsyncSession) -> None:
    with pytest.raises(ImportRejectedError) as caught:
        await import_pets(session, rows("name,sex", "Rex,secret"))

    assert "secret" not in repr(caught.value)
    assert "rejected=1" in repr(caught.value)


async def test_a_report_of_a_clean_file_is_one_line(session: AsyncSession) -> None:
    report = await import_pets(session, rows("name,external_ref", "Rex,p1"))

    assert str(report) == "1 created, 0 updated, 0 unchanged, 0 rejected"


async def test_created_pets_that_a_second_import_would_create_again_are_counted(session: AsyncSession) -> None:
    lines = ["Rex,p1,,", "Max,,985112345678903,", "Mia,,,", "Zoe,,,Ada"]
    for created, without_key in ((4, 2), (2, 2)):
        report = await import_pets(session, rows("name,external_ref,microchip,owner_name", *lines), keep_going=True)

        assert (report.created, report.without_key) == (created, without_key)


async def test_an_import_needs_a_transaction_that_may_write(db: Database) -> None:
    for options in ({}, {"snapshot": True}):
        with pytest.raises(StorageError, match=r"use transaction\(\) to write"):
            async with db.reading(**options) as session:
                await import_pets(session, rows("name", "Rex"))


async def test_a_file_that_is_not_there_is_the_callers_error(session: AsyncSession, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await import_pets(session, tmp_path / "missing.csv")


async def test_an_import_can_be_cancelled_and_leaves_nothing(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_format, "BATCH_SIZE", 10)

    await cancel_half_way(db.transaction())

    async with db.reading() as session:
        assert await count_pets(session) == 0


async def test_progress_is_told_in_rows_done(session: AsyncSession) -> None:
    told: list[int] = []

    await import_pets(session, rows("name", *["Rex"] * 2500), progress=told.append)

    assert told == [1000, 2000, 2500]


_PROGRAM = """
import asyncio, io
from sqlmodel_alembic_async import *
async def main():
    async with Database("sqlite:///:memory:") as db:
        await db.create_tables()
        async with db.transaction() as session:
            await import_pets(session, io.StringIO("name\\n" + "Rex\\n" * 3000), progress=True)
asyncio.run(main())
"""


def test_a_progress_bar_is_shown_on_a_terminal() -> None:
    program = pexpect.spawn(sys.executable, ["-W", "error", "-c", _PROGRAM], encoding="utf-8", timeout=60)

    program.expect("100%.*3000/3000.* rows/s")
    program.expect(pexpect.EOF)
    program.close()
    assert program.exitstatus == 0


def test_a_missing_progress_bar_says_what_to_install() -> None:
    program = "import sys; sys.modules['tqdm'] = None\n" + _PROGRAM

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert "pip install 'sqlmodel-alembic-async[progress]'" in done.stderr
