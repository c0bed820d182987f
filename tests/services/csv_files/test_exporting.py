"""Exports: what is written, and where to."""

import asyncio
import csv
import io
import os
import select
import threading
from contextlib import ExitStack, suppress
from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    User,
    UserCreate,
    archive_pet,
    create_pet,
    create_pets,
    create_user,
    export_pets,
    import_pets,
    list_pets,
)
from sqlmodel_alembic_async.services.csv_files import sources, targets
from sqlmodel_alembic_async.services.csv_files.placeholders import escaped, unescaped

from ...stress.measures import becomes_true
from .imports import counts, pets_of, users_of

PATIENCE = 10.0  # Seconds after which a test that hangs is ended.

HEADER = (
    "name,species,breed,color,sex,neutered,birth_date,birth_date_estimated,weight_g,microchip,status,deceased_on,"
    "acquired_on,notes,external_ref,owner_name,owner_email,owner_phone,owner_address,owner_city,owner_postal_code,"
    "owner_notes,owner_external_ref\r\n"
)


async def exported(session: AsyncSession, **filters: object) -> list[dict[str, str]]:
    file = io.StringIO(newline="")
    number = await export_pets(session, file, **filters)  # type: ignore[arg-type]
    found = list(csv.DictReader(io.StringIO(file.getvalue(), newline="")))
    assert len(found) == number
    return found


async def test_a_pet_and_its_owner_are_one_row_of_the_native_format(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com", postal_code="07302"))
    pet = PetCreate(
        name="Rex",
        owner_id=ada.id,
        species="dog",
        neutered=True,
        birth_date=date(2014, 1, 1),
        birth_date_estimated=True,
        weight_g=9500,
        notes='one\r\n"two", three',
    )
    await create_pet(session, pet)
    await create_pet(session, PetCreate(name="Tom"))
    file = io.StringIO(newline="")

    assert await export_pets(session, file) == 2

    assert file.getvalue() == (
        HEADER + 'Rex,dog,,,unknown,true,2014-01-01,true,9500,,active,,,"one\r\n""two"", three",,'
        "Ada,ada@example.com,,,,07302,,\r\n"
        "Tom,,,,unknown,,,false,,,active,,,,,,,,,,,,\r\n"
    )


async def test_an_export_takes_the_filters_of_a_list(session: AsyncSession) -> None:
    rex = await create_pet(session, PetCreate(name="Rex", species="dog"))
    await create_pet(session, PetCreate(name="Tom", species="cat"))
    await archive_pet(session, rex.id)

    assert [row["name"] for row in await exported(session)] == ["Tom"]
    assert [row["name"] for row in await exported(session, archived=None)] == ["Rex", "Tom"]
    assert [row["name"] for row in await exported(session, species="DOG", archived=True)] == ["Rex"]
    with pytest.raises(TypeError, match="unknown filter"):
        await exported(session, kind="dog")


async def test_an_export_streams_in_the_order_of_the_ids(db: Database, session: AsyncSession) -> None:
    names = [f"Rex {number % 7} {number}" for number in range(2500)]
    await create_pets(session, (PetCreate(name=name) for name in names))

    assert [row["name"] for row in await exported(session)] == names


async def test_what_the_session_has_not_written_yet_is_exported(session: AsyncSession) -> None:
    session.add(Pet(name="Rex"))

    assert [row["name"] for row in await exported(session)] == ["Rex"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "'=x", "''-", "＝x", "＠", "'plain", "a=b"])  # noqa: RUF001
async def test_a_cell_that_a_spreadsheet_would_run_is_defused_and_restored(session: AsyncSession, text: str) -> None:
    await create_pet(session, PetCreate(name=text, external_ref="p1"))
    file = io.StringIO(newline="")

    await export_pets(session, file)

    cell = next(csv.DictReader(io.StringIO(file.getvalue(), newline="")))["name"]
    assert cell[0] not in "=+-@＝＋－＠"  # noqa: RUF001
    assert cell == (text if text in ("'plain", "a=b") else f"'{text}")
    file.seek(0)
    report = await import_pets(session, file)
    assert (report.unchanged, report.rejections) == (1, [])
    assert [pet.name for pet in (await list_pets(session)).items] == [text]


def test_a_tab_at_the_beginning_is_defused() -> None:
    assert [escaped("color", text) for text in ("\tx", "\rx", "x\t")] == ["'\tx", "'\rx", "x\t"]


@given(
    field=st.sampled_from(["name", "owner_name", "breed", "color"]),
    text=st.text(st.sampled_from("'=-?9x ") | st.characters(exclude_categories=["Cs"]), max_size=5),
)
def test_what_is_escaped_is_restored(field: str, text: str) -> None:
    assert unescaped(field, escaped(field, text)) == text


async def test_a_text_that_an_import_would_take_for_a_placeholder_is_marked(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="TBD", city="unknown"))
    await create_pet(session, PetCreate(name="99", breed="Unknown", color="unknown", species="n/a", owner_id=ada.id))
    await create_pet(session, PetCreate(name="Rex", breed="-", color="-"))

    first, second = await exported(session)

    assert [first[name] for name in ("name", "breed", "color", "species")] == ["'99", "'Unknown", "unknown", "n/a"]
    assert (first["owner_name"], first["owner_city"]) == ("'TBD", "unknown")
    assert (second["name"], second["breed"], second["color"]) == ("Rex", "'-", "'-")


async def test_a_file_is_replaced_when_everything_is_written_and_is_its_users_alone(
    session: AsyncSession, tmp_path: Path
) -> None:
    target = tmp_path / "pets.csv"
    target.write_text("the last export")
    await create_pet(session, PetCreate(name="Zoë"))

    assert await export_pets(session, str(target)) == 1

    assert target.read_bytes().decode() == HEADER + "Zoë,,,,unknown,,,false,,,active,,,,,,,,,,,,\r\n"
    assert target.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["pets.csv"]


async def test_what_a_link_points_to_is_replaced_and_the_link_stays(session: AsyncSession, tmp_path: Path) -> None:
    (tmp_path / "2026").mkdir()
    (tmp_path / "pets.csv").symlink_to(tmp_path / "2026" / "pets.csv")

    for _ in range(2):
        await export_pets(session, tmp_path / "pets.csv")

    assert (tmp_path / "pets.csv").is_symlink()
    assert (tmp_path / "2026" / "pets.csv").read_bytes().decode() == HEADER


async def test_an_export_that_fails_leaves_the_last_one(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "pets.csv"
    target.write_text("the last export")

    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))
        monkeypatch.setattr("sqlmodel_alembic_async.services.csv_files.exporting.escaped", None)
        with pytest.raises(TypeError):
            await export_pets(session, target)

    assert target.read_text() == "the last export"
    assert os.listdir(tmp_path) == ["pets.csv"]


async def test_a_device_is_written_to_and_not_replaced(session: AsyncSession) -> None:
    await create_pet(session, PetCreate(name="Rex"))

    assert await export_pets(session, "/dev/null") == 1
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize("is_open", [True, False])
async def test_a_pipe_is_written_to_though_this_event_loop_reads_it(
    session: AsyncSession, tmp_path: Path, is_open: bool
) -> None:
    await create_pets(session, (PetCreate(name=f"Zoë {number}", notes="🐶" * 50) for number in range(2500)))
    await export_pets(session, tmp_path / "file.csv")
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    # A pipe whose reader goes away refuses what is written to it: then the test fails, and does not hang.
    watchdog = threading.Timer(PATIENCE, os.close, [reading])
    watchdog.start()
    content = b""

    async def write() -> int:
        if not is_open:
            return await export_pets(session, tmp_path / "pipe")
        with (tmp_path / "pipe").open("w", encoding="utf-8", newline="") as file:
            return await export_pets(session, file)

    task = asyncio.create_task(write())
    while not task.done():
        await asyncio.sleep(0.001)
        with suppress(BlockingIOError):
            content += os.read(reading, 2**20)
    watchdog.cancel()
    os.close(reading)

    assert await task == 2500
    assert content == (tmp_path / "file.csv").read_bytes()


@pytest.mark.parametrize("kind", ["full", "full and open", "without a reader"])
async def test_an_export_to_a_pipe_can_be_cancelled(session: AsyncSession, tmp_path: Path, kind: str) -> None:
    await create_pets(session, (PetCreate(name="Rex", notes="x" * 200) for _ in range(1000)))
    os.mkfifo(tmp_path / "pipe")
    with ExitStack() as stack:
        if kind != "without a reader":
            reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
            stack.callback(os.close, reading)
        target: Any = tmp_path / "pipe"
        if kind == "full and open":
            target = stack.enter_context(target.open("w", encoding="utf-8", newline=""))
        watchdog = threading.Timer(PATIENCE, (tmp_path / "pipe").read_bytes)
        watchdog.daemon = True
        watchdog.start()

        task = asyncio.create_task(export_pets(session, target))
        if kind != "without a reader":
            assert await becomes_true(lambda: bool(select.select([reading], [], [], 0)[0]), within=PATIENCE)
        await asyncio.sleep(4 * sources.POLL_INTERVAL)  # As often it is looked whether the other end is ready.
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert watchdog.is_alive()
        watchdog.cancel()
        for thread in threading.enumerate():
            if thread.name == "sqlmodel_alembic_async":
                await asyncio.to_thread(thread.join, PATIENCE)


async def test_a_cancelled_export_writes_nothing_more_to_an_open_pipe(session: AsyncSession) -> None:
    await create_pets(session, (PetCreate(name="Rex", notes="x" * 5000) for _ in range(1000)))
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w", encoding="utf-8", newline="") as writer:
        content: list[bytes] = []
        thread = threading.Thread(target=lambda: content.extend(iter(lambda: os.read(reader.fileno(), 4096), b"")))
        thread.start()
        task = asyncio.create_task(export_pets(session, writer))
        assert await becomes_true(lambda: len(content) > 20, within=PATIENCE)

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        writer.write("the caller's own")
        writer.close()
        await asyncio.to_thread(thread.join, PATIENCE)

    assert b"".join(content).endswith(b"the caller's own")
    assert len(b"".join(content)) < 5_000_000


async def test_a_pipe_whose_reader_goes_away_is_the_callers_error(session: AsyncSession, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(BrokenPipeError), (tmp_path / "pipe").open("w", encoding="utf-8", newline="") as file:
        os.close(reading)
        await export_pets(session, file)


async def test_a_pipe_that_can_not_be_opened_is_the_callers_error(
    session: AsyncSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError

    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(targets, "_open_path", refuse)

    with pytest.raises(PermissionError):
        await export_pets(session, tmp_path / "pipe")


@pytest.mark.parametrize("target", [io.BytesIO(), b"pets.csv", [], None])
async def test_a_target_that_is_no_text_file_is_refused(session: AsyncSession, target: Any) -> None:
    with pytest.raises(TypeError, match=f"opened in text mode, not {type(target).__name__}"):
        await export_pets(session, target)


@pytest.mark.parametrize("is_pipe", [False, True])
async def test_a_character_that_the_target_cannot_hold_is_told_without_the_row(
    session: AsyncSession, tmp_path: Path, is_pipe: bool
) -> None:
    await create_pet(session, PetCreate(name="Łukasz"))
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "w", encoding="latin-1") as pipe:
        target = pipe if is_pipe else (tmp_path / "pets.csv").open("w", encoding="latin-1")
        with target, pytest.raises(ValueError, match="lacks a character") as caught:
            await export_pets(session, target)

    assert not isinstance(caught.value, UnicodeError)
    assert caught.value.__suppress_context__


async def test_a_folder_that_is_missing_is_the_callers_error(session: AsyncSession, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await export_pets(session, tmp_path / "missing" / "pets.csv")


async def test_a_session_that_only_reads_can_export(db: Database) -> None:
    for options in ({}, {"snapshot": True}):
        async with db.reading(**options) as session:
            assert await exported(session) == []


_MARKS = st.sampled_from(["", "'", "''", "=", "'=", "-", "＋", "\ufeff", "\u200b"])  # noqa: RUF001


_TEXTS = (
    st.text(
        st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]) | st.sampled_from("=+-@'\"\t\r\n,;＝\xa0"),  # noqa: RUF001
        min_size=1,
        max_size=12,
    )
    | st.builds(
        "{}{}".format, _MARKS, st.sampled_from(["Unknown", "N/A", "99", "-", "x", "M", "yes", "1999", "'", "?"])
    )
    | st.sampled_from(["=1+1", "one\r\ntwo", "one\rtwo\n\nthree", "e\u0301", "ǅ", "İ", "ß", "'", "''", "true"])
)


_DAYS = st.dates(date(1, 1, 1), date(2026, 1, 1))


def _valid(shape: type[Any], **values: Any) -> Any:
    """Return a shape with those of the values that it takes."""
    while True:
        try:
            return shape(**values)
        except ValidationError as error:
            places = [detail["loc"] for detail in error.errors()]
            refused = {place[0] for place in places if place} or {"deceased_on", "birth_date_estimated", "acquired_on"}
            values = {"name": "Rex"} | {name: value for name, value in values.items() if name not in refused}


_OWNERS = st.fixed_dictionaries(
    {"name": _TEXTS},
    optional={
        **dict.fromkeys(("address", "city", "postal_code", "notes"), _TEXTS),
        "phone": st.builds("{}030 12345".format, _MARKS),
        "email": _MARKS,
        "external_ref": _MARKS,
    },
)


_PETS = st.fixed_dictionaries(
    {"name": _TEXTS, "owner": st.none() | st.integers(0, 3)},
    optional={
        **dict.fromkeys(("species", "breed", "color", "notes"), _TEXTS),
        **dict.fromkeys(("birth_date", "deceased_on", "acquired_on"), _DAYS),
        "sex": st.sampled_from(["male", "female", "unknown"]),
        "neutered": st.booleans(),
        "birth_date_estimated": st.booleans(),
        "weight_g": st.integers(1, 2**31 - 1),
        "microchip": st.sampled_from(["00000000{}", "A-0000000{}", "27609810234567{}"]),
        "status": st.sampled_from(["active", "missing", "deceased"]),
        "external_ref": _MARKS,
    },
)


def _owner(number: int, values: dict[str, Any]) -> UserCreate:
    endings = {"email": f"{number}@example.com", "external_ref": f"{number}"}
    keys = {name: values[name] + ending for name, ending in endings.items() if name in values}
    return cast(UserCreate, _valid(UserCreate, **values | keys))


def _pet(number: int, values: dict[str, Any]) -> PetCreate:
    keys = {"microchip": values["microchip"].format(number)} if "microchip" in values else {}
    keys |= {"external_ref": f"{values['external_ref']}{number}"} if "external_ref" in values else {}
    return cast(PetCreate, _valid(PetCreate, **values | keys))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(owners=[{"name": "N/A"}], pets=[{"name": "99", "owner": 0}])
@example(
    owners=[], pets=[{"name": "Rex", "owner": None, "breed": text} for text in ("Unknown", "-", "=1+1", "'", "''?")]
)
@given(owners=st.lists(_OWNERS, max_size=4), pets=st.lists(_PETS, max_size=6))
def test_an_export_imported_elsewhere_is_exported_as_the_same_bytes(
    migrated_url: URL, tmp_path: Path, owners: list[dict[str, Any]], pets: list[dict[str, Any]]
) -> None:
    async def go() -> None:
        async with Database(migrated_url) as db:
            async with db.transaction() as session:
                ids = [(await create_user(session, _owner(number, values))).id for number, values in enumerate(owners)]
                for number, values in enumerate(pets):
                    owner = values["owner"]
                    owner_id = None if owner is None or owner >= len(ids) else ids[owner]
                    given = {name: value for name, value in values.items() if name != "owner"}
                    await create_pet(session, _pet(number, given | {"owner_id": owner_id}))
            async with db.reading() as session:
                assert await export_pets(session, tmp_path / "first.csv") == len(pets)
            first = await everything(db)
            await empty(db)
            async with db.transaction() as session:
                report = await import_pets(session, tmp_path / "first.csv")
            assert counts(report) == (len(pets), 0, 0, 0)
            async with db.reading() as session:
                await export_pets(session, tmp_path / "second.csv")
            assert await everything(db) == first
            await empty(db)

    asyncio.run(go())
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()


async def everything(db: Database) -> list[Any]:
    """Return all that a file carries, without the owners who have no pet."""
    kept = {"id", "created_at", "updated_at", "owner_id"}
    async with db.reading() as session:
        owners = {user.id: user.model_dump(exclude=kept) for user in await users_of(session)}
        return [(pet.model_dump(exclude=kept), owners.get(pet.owner_id)) for pet in await pets_of(session)]


async def empty(db: Database) -> None:
    async with db.engine.begin() as connection:
        for model in (Pet, User):
            await connection.execute(model.__table__.delete())
