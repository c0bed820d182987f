"""Rows and their owners."""

from datetime import date
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession as HostSession

from sqlmodel_alembic_async import (
    AsyncSession,
    Pet,
    PetCreate,
    User,
    UserCreate,
    count_users,
    create_pet,
    create_user,
    get_user,
    import_pets,
)
from sqlmodel_alembic_async.services.csv_files import file_format

from .imports import CHIPS, counts, pets_of, reasons, rejected, rows, users_of


async def test_an_owner_is_matched_by_external_ref_and_then_by_email_never_by_name(session: AsyncSession) -> None:
    await create_user(session, UserCreate(name="Ada", external_ref="u1"))
    await create_user(session, UserCreate(name="Bob", email="bob@example.com"))

    report = await import_pets(
        session,
        rows(
            "owner_name,owner_external_ref,owner_email,owner_city",
            "Ada,u1,ADA@example.com,Berlin",
            "Bob,u2,BOB@example.com,",
            "Ada,,,",
        ),
    )

    assert counts(report) == (1, 2, 0, 0)
    assert [(user.name, user.external_ref, user.email, user.city) for user in await users_of(session)] == [
        ("Ada", "u1", "ada@example.com", "Berlin"),
        ("Bob", "u2", "bob@example.com", None),
        ("Ada", None, None, None),
    ]


@pytest.mark.usefixtures("batch")
async def test_an_email_that_an_owner_gives_up_makes_no_second_owner(session: AsyncSession) -> None:
    await create_user(session, UserCreate(name="Ada", email="a@example.com", external_ref="u1"))
    lines = ("owner_name,owner_external_ref,owner_email", "Ada,u1,b@example.com", "Ada,,a@example.com")

    report = await import_pets(session, rows(*lines), keep_going=True)

    assert reasons(report) == [(3, "owner_email", "a@example.com")]
    assert [user.email for user in await users_of(session)] == ["b@example.com"]


async def test_keys_of_two_rows_that_are_stored_are_never_joined(session: AsyncSession) -> None:
    await create_pet(session, PetCreate(name="Rex", external_ref="p1"))
    await create_pet(session, PetCreate(name="Tom", microchip=CHIPS[0]))
    await create_user(session, UserCreate(name="Ada", external_ref="u1"))
    await create_user(session, UserCreate(name="Bob", email="bob@example.com"))

    report = await rejected(
        session,
        "name,external_ref,microchip,owner_external_ref,owner_email",
        f"Rex,p1,{CHIPS[0]},,",
        "Max,,,u1,bob@example.com",
    )

    assert reasons(report) == [(2, "microchip", CHIPS[0]), (3, "owner_email", "bob@example.com")]


async def test_an_owner_repeated_in_a_file_is_one_owner(session: AsyncSession) -> None:
    await import_pets(
        session,
        rows(
            "name,owner_name,owner_email,owner_phone,owner_external_ref",
            "Rex,Ada,ada@example.com,,",
            "Tom,,ADA@example.com,030 12345,",
            "Max,Bob,,030 55555,",
            "Eve,Bob,,030 55555,",
            "Kim,Bob,,030 66666,",
            "Lea,Cid,cid@example.com,,u1",
            "Leo,Cid,,,u1",
        ),
    )

    pets = await pets_of(session)
    assert len({pet.owner_id for pet in pets}) == 4
    assert pets[0].owner_id == pets[1].owner_id
    assert pets[2].owner_id == pets[3].owner_id
    assert pets[5].owner_id == pets[6].owner_id
    ada = await get_user(session, pets[0].owner_id)
    assert (ada.name, ada.phone, ada.version) == ("Ada", "030 12345", 1)


async def test_an_owner_is_one_also_where_the_rows_are_far_apart(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_format, "BATCH_SIZE", 2)
    lines = [
        "name,owner_name,owner_email",
        "A,Ada,ada@example.com",
        "B,Bob,",
        "C,,",
        "D,,",
        "E,Ada,ada@example.com",
        "F,Bob,",
    ]

    report = await import_pets(session, rows(*lines))

    assert counts(report) == (6, 0, 0, 0)
    assert await count_users(session) == 2
    pets = await pets_of(session)
    assert [pet.owner_id for pet in pets] == [*[pet.owner_id for pet in pets[:2]], None, None] + [
        pet.owner_id for pet in pets[:2]
    ]


async def test_rows_that_contradict_each_other_about_one_owner_are_rejected(session: AsyncSession) -> None:
    lines = ("name,owner_name,owner_email", "Rex,Ada,a@example.com", "Tom,Eve,A@example.com", "Max,Bob,b@example.com")

    report = await import_pets(session, rows(*lines), keep_going=True)

    assert reasons(report) == [(2, "owner_name", "Ada"), (3, "owner_name", "Eve")]
    assert [pet.name for pet in await pets_of(session)] == ["Max"]
    assert await count_users(session) == 1


@pytest.mark.usefixtures("batch")
async def test_rows_that_contradict_each_other_by_way_of_a_third_one_are_rejected(session: AsyncSession) -> None:
    lines = (
        "owner_name,owner_external_ref,owner_email,owner_city",
        "Ada,u1,a@example.com,",
        "Ada,u1,,Bonn",
        "Ada,,a@example.com,Berlin",
    )

    report = await rejected(session, *lines)

    assert [(rejection.line, rejection.column) for rejection in report.rejections] == [
        (line, "owner_city") for line in (2, 3, 4)
    ]
    assert report.rejections[0].reason == "differs between lines 3 and 4 of the same owner: give one value on both"


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("city", ["Bonn", "Rome"])
async def test_one_stored_owner_of_whom_two_keys_say_different_things_is_rejected(
    session: AsyncSession, city: str
) -> None:
    await create_user(session, UserCreate(name="Ada", email="a@example.com", external_ref="u1", city=city))
    lines = ("owner_external_ref,owner_email,owner_city,owner_phone", "u1,,Bonn,", ",a@example.com,Berlin,030 12345")

    report = await import_pets(session, rows(*lines), keep_going=True)

    assert reasons(report) == [(3, "owner_city", "Berlin")]
    assert [(user.city, user.phone) for user in await users_of(session)] == [("Bonn", None)]


async def test_one_stored_owner_who_is_changed_in_two_ways_is_rejected(session: AsyncSession) -> None:
    await create_user(session, UserCreate(name="Ada", email="a@example.com", external_ref="u1"))
    lines = ("owner_external_ref,owner_email,owner_city", "u1,b@example.com,", ",a@example.com,Bonn", "u1,,")

    report = await rejected(session, *lines)

    assert reasons(report) == [(3, "owner_email", "a@example.com")]


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize(
    "rejected_line",
    ["Max,heavy,Ada,a@example.com,Bonn,", "Max,,unknown,a@example.com,Bonn,", "Max,,Ada,a@example.com,Bonn,12"],
)
async def test_a_rejected_row_changes_no_owner_and_rejects_no_other_row(
    session: AsyncSession, rejected_line: str
) -> None:
    header = "name,weight_g,owner_name,owner_email,owner_city,owner_phone"

    report = await import_pets(session, rows(header, rejected_line, "Rex,,Ada,a@example.com,,"), keep_going=True)

    assert counts(report) == (1, 0, 0, 1)
    assert [rejection.line for rejection in report.rejections] == [2]
    assert [(user.name, user.city, user.phone) for user in await users_of(session)] == [("Ada", None, None)]


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("city", ["Bonn", ""])
async def test_rows_that_give_one_key_of_a_pet_add_nothing_to_their_owner(session: AsyncSession, city: str) -> None:
    header = "name,external_ref,owner_name,owner_email,owner_city"
    lines = ["Max,p1,Ada,a@example.com,Bonn", "Tom,p1,Ada,a@example.com,", f"Rex,,Ada,a@example.com,{city}"]

    report = await import_pets(session, rows(header, *lines), keep_going=True)

    assert reasons(report) == [(2, "external_ref", "p1"), (3, "external_ref", "p1")]
    assert counts(report) == (1, 0, 0, 2)
    assert [(user.name, user.city) for user in await users_of(session)] == [("Ada", city or None)]


@pytest.mark.usefixtures("batch")
async def test_rows_that_give_one_key_of_a_pet_do_not_tell_who_its_owner_is(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada"))
    await create_pet(session, PetCreate(name="Rex", external_ref="p1", owner_id=ada.id))

    report = await import_pets(
        session, rows("name,external_ref,owner_name", "Rex,p1,Ada", "Rex,p1,Ada", "Tom,,Ada"), keep_going=True
    )

    assert counts(report) == (1, 0, 0, 2)
    assert [pet.owner_id == ada.id for pet in await pets_of(session)] == [True, False]


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("email", ["", "zoe@example.com"])
async def test_an_owner_is_one_however_the_characters_are_composed(session: AsyncSession, email: str) -> None:
    report = await import_pets(
        session, rows("name,owner_name,owner_email", f"Max,Zo\u00eb,{email}", f"Rex,Zoe\u0308,{email}")
    )

    assert counts(report) == (2, 0, 0, 0)
    assert [user.name for user in await users_of(session)] == ["Zo\u00eb"]


async def test_what_the_rows_say_together_finds_the_stored_owner(session: AsyncSession) -> None:
    await create_user(session, UserCreate(name="Ada", external_ref="u1"))

    report = await import_pets(
        session,
        rows("owner_name,owner_external_ref,owner_email", "Bob,,b@example.com", "Bob,u1,b@example.com"),
        keep_going=True,
    )

    assert counts(report) == (0, 1, 1, 0)
    assert [(user.name, user.email) for user in await users_of(session)] == [("Bob", "b@example.com")]


async def test_an_owner_without_a_key_is_known_by_the_pet(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada", phone="030 12345", city="Berlin"))
    await create_pet(session, PetCreate(name="Rex", external_ref="p1", owner_id=ada.id))
    await create_pet(session, PetCreate(name="Tom", external_ref="p2"))
    lines = ("name,external_ref,owner_name,owner_phone", "Rex,p1,Ada,030 12345", "Tom,p2,Bob,")

    report = await import_pets(session, rows(*lines))
    again = await import_pets(session, rows(*lines))

    assert (counts(report), counts(again)) == ((0, 1, 1, 0), (0, 0, 2, 0))
    assert [user.name for user in await users_of(session)] == ["Ada", "Bob"]


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("lines", [("New,p2", "Rex,p1"), ("Rex,p1", "New,p2"), ("New,", "Rex,p1")])
async def test_an_owner_known_by_a_pet_is_known_in_the_other_rows_too(
    session: AsyncSession, lines: tuple[str, ...]
) -> None:
    ada = await create_user(session, UserCreate(name="Ada", phone="030 12345"))
    await create_pet(session, PetCreate(name="Rex", external_ref="p1", owner_id=ada.id))
    header = "name,external_ref,owner_name,owner_phone"

    report = await import_pets(session, rows(header, *(f"{line},Ada,030 12345" for line in lines)))

    assert counts(report) == (1, 0, 1, 0)
    assert {pet.owner_id for pet in await pets_of(session)} == {ada.id}
    assert await count_users(session) == 1


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("phone", ["1", "030 99999"])
async def test_a_pet_does_not_tell_who_an_owner_is_whose_cells_differ(session: AsyncSession, phone: str) -> None:
    ada = await create_user(session, UserCreate(name="Ada", phone="030 12345"))
    await create_pet(session, PetCreate(name="Rex", external_ref="p1", owner_id=ada.id))
    await create_pet(session, PetCreate(name="Tom", external_ref="p2"))
    header = "name,external_ref,owner_name,owner_phone"

    lines = [f"{line},Ada,{phone}" for line in ("New,", "Rex,p1", "Tom,p2")]
    report = await import_pets(session, rows(header, *lines), keep_going=True)

    assert (3, phone == "1") in [(line, column is not None) for line, column, _ in reasons(report)]
    assert (await pets_of(session))[0].owner_id == ada.id
    assert await count_users(session) == (1 if phone == "1" else 2)


async def test_an_owner_without_a_key_who_is_not_the_pets_is_rejected(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada", phone="030 12345"))
    await create_pet(session, PetCreate(name="Rex", external_ref="p1", owner_id=ada.id))

    report = await rejected(session, "external_ref,owner_name,owner_phone", "p1,Ada,030 99999")

    assert [rejection.line for rejection in report.rejections] == [2]
    assert "differs from the pet's stored owner" in report.rejections[0].reason


async def test_a_row_gives_a_pet_to_another_owner(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada"))
    bob = await create_user(session, UserCreate(name="Bob", email="bob@example.com"))
    day = date(2020, 1, 1)
    for name in ("p1", "p2"):
        await create_pet(session, PetCreate(name=name, external_ref=name, owner_id=ada.id, acquired_on=day))

    report = await import_pets(
        session,
        rows("external_ref,acquired_on,owner_email", "p1,,bob@example.com", "p2,2024-05-01,bob@example.com"),
    )

    assert counts(report) == (0, 2, 0, 0)
    pets = await pets_of(session)
    assert [(pet.owner_id, pet.acquired_on) for pet in pets] == [(bob.id, None), (bob.id, date(2024, 5, 1))]


async def test_a_deceased_pet_is_given_to_nobody_else(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com"))
    await create_pet(session, PetCreate(name="Rex", external_ref="p1", status="deceased", owner_id=ada.id))
    lines = ("external_ref,owner_name,owner_email", "p1,Bob,bob@example.com")

    report = await rejected(session, *lines)
    same = await import_pets(session, rows("external_ref,owner_email", "p1,ada@example.com"))

    assert [rejection.reason for rejection in report.rejections] == [
        "a deceased pet cannot be transferred: give its stored owner, or none"
    ]
    assert counts(same) == (0, 0, 1, 0)


async def test_a_pet_whose_owner_is_missing_gets_the_one_of_its_row(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'own.db'}")  # Its foreign keys are off.
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all, tables=[User.__table__, Pet.__table__])

    async with HostSession(engine) as session:
        await create_pet(session, PetCreate(name="Rex", external_ref="p1", owner_id=77))
        report = await import_pets(session, rows("external_ref,owner_name", "p1,Ada"))

        assert counts(report) == (0, 1, 0, 0)
        assert [user.name for user in await users_of(session)] == ["Ada"]
    await engine.dispose()


@pytest.mark.parametrize("bad_line", [2, 3])
async def test_an_invalid_cell_of_a_new_owner_is_rejected_on_whichever_line_it_is(
    session: AsyncSession, batch: None, bad_line: int
) -> None:
    lines = ["Rex,u1,Ada,", "Tom,u1,Ada,"]
    lines[bad_line - 2] += "12"

    report = await import_pets(session, rows("name,owner_external_ref,owner_name,owner_phone", *lines), keep_going=True)

    assert reasons(report) == [(bad_line, "owner_phone", "12")]
    assert counts(report) == (1, 0, 0, 1)


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize(("lines", "outcome"), [("ab", (0, 1, 0, 1)), ("ba", (0, 1, 1, 0))])
async def test_a_row_that_gives_what_an_earlier_line_replaces_in_the_stored_owner_is_rejected(
    session: AsyncSession, lines: str, outcome: tuple[int, int, int, int]
) -> None:
    ada = await create_user(session, UserCreate(name="Ada", external_ref="u1"))
    await create_pet(session, PetCreate(name="Rex", external_ref="p1", owner_id=ada.id))
    texts = {"a": ",,Eve,u1", "b": "Rex,p1,Ada,"}

    report = await import_pets(
        session,
        rows("name,external_ref,owner_name,owner_external_ref", *(texts[line] for line in lines)),
        keep_going=True,
    )

    assert counts(report) == outcome
    assert [user.name for user in await users_of(session)] == ["Eve"]


@pytest.mark.usefixtures("batch")
async def test_a_row_that_is_rejected_for_its_pet_rejects_no_other_row_of_the_owner(session: AsyncSession) -> None:
    await create_user(session, UserCreate(name="Ada", external_ref="u1", email="ada@example.com"))
    bob = await create_user(session, UserCreate(name="Bob"))
    pet = PetCreate(name="Rex", external_ref="p1", owner_id=bob.id, status="deceased")
    await create_pet(session, pet)

    report = await import_pets(
        session,
        rows(
            "name,external_ref,owner_external_ref,owner_email,owner_city",
            "Rex,p1,u1,,Bonn",
            "Tom,p2,,ada@example.com,Berlin",
        ),
        keep_going=True,
    )

    assert (counts(report), reasons(report)) == ((1, 0, 0, 1), [(2, None, None)])
    assert [user.city for user in await users_of(session)] == ["Berlin", None]
