"""What is done with many rows lets the event loop go on."""

import asyncio
import io
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    SimilarExistsError,
    User,
    UserCreate,
    create_pets,
    create_user,
    create_users,
    export_pets,
    find_duplicate_pets,
    find_duplicate_users,
    import_pets,
    list_pets,
    stream_pets,
    stream_users,
)
from sqlmodel_alembic_async.services.csv_files import batch_import, exporting, file_format, owner_matching, pet_matching
from sqlmodel_alembic_async.services.csv_files.cell_parsing import CellReader
from sqlmodel_alembic_async.services.csv_files.key_index import KeyIndex
from sqlmodel_alembic_async.services.duplicates import search
from sqlmodel_alembic_async.services.statements import chunks

NUMBER = 2500
KEYED = "name,external_ref,owner_name,owner_email\r\n" + "".join(
    f"Rex {number},p{number},Ada,ada{number}@example.com\r\n" for number in range(NUMBER)
)


class Turns:
    """Counts what happens from one turn of another task of the event loop to the next."""

    def __init__(self) -> None:
        self._turn = 0
        self._noted: Counter[tuple[str, int]] = Counter()

    def note(self, what: str) -> None:
        self._noted[what, self._turn] += 1

    def noting(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **options: Any) -> Any:
            self.note(what)
            return function(*arguments, **options)

        return noted

    @property
    def most(self) -> dict[str, int]:
        """The most in one turn."""
        most: dict[str, int] = {}
        for (what, _), number in self._noted.items():
            most[what] = max(number, most.get(what, 0))
        return most

    def total(self, what: str) -> int:
        return sum(number for (noted, _), number in self._noted.items() if noted == what)

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._count())
        yield
        task.cancel()
        await asyncio.wait([task])

    async def _count(self) -> None:
        while True:
            self._turn += 1
            await asyncio.sleep(0)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    turns = Turns()
    monkeypatch.setattr(chunks, "_LONGEST_TURN", 60)  # A slow machine would make the slices smaller.
    places: list[tuple[Any, str]] = [
        (CellReader, "read"),
        (KeyIndex, "add_row"),
        (pet_matching, "valid_values"),
        (pet_matching, "non_blank_values"),
        (batch_import, "stamped"),
        (owner_matching, "_keyed_owner"),
        (search, "keys_of"),
        (exporting, "_cells"),
    ]
    for place, name in places:
        monkeypatch.setattr(place, name, turns.noting(name, getattr(place, name)))
    return turns


@contextmanager
def loads_noted(turns: Turns) -> Iterator[None]:
    def note(row: object, *rest: object) -> None:
        turns.note("load")

    for model in (User, Pet):
        event.listen(model, "load", note)
        event.listen(model, "refresh", note)
    yield
    for model in (User, Pet):
        event.remove(model, "load", note)
        event.remove(model, "refresh", note)


async def test_rows_of_a_file_are_handled_in_slices(db: Database, turns: Turns) -> None:
    async with turns.counted():
        for _ in range(2):
            async with db.transaction() as session:
                await import_pets(session, io.StringIO(KEYED))

    wanted = ("read", "add_row", "valid_values", "non_blank_values", "stamped", "_keyed_owner")
    assert {name: turns.most[name] for name in wanted} == dict.fromkeys(wanted, chunks.SLICE)


async def test_rows_that_an_import_changed_are_read_anew_in_slices(session: AsyncSession, turns: Turns) -> None:
    await create_pets(session, (PetCreate(name=f"p{number}", external_ref=f"p{number}") for number in range(NUMBER)))
    held = [pet async for pet in stream_pets(session)]

    with loads_noted(turns):
        async with turns.counted():
            lines = "".join(f"p{number},brown\r\n" for number in range(NUMBER))
            await import_pets(session, io.StringIO(f"external_ref,color\r\n{lines}"))

    assert turns.most["load"] == chunks.SLICE
    assert {pet.color for pet in held} == {"brown"}


async def test_duplicates_are_looked_for_in_slices(session: AsyncSession, turns: Turns) -> None:
    await create_users(session, (UserCreate(name=f"Ada {n // 2}", phone="030 12345") for n in range(NUMBER)))
    await create_pets(session, (PetCreate(name="Rex", notes=f"9851410{n // 2:08}") for n in range(NUMBER)))

    with loads_noted(turns):
        async with turns.counted():
            users = [group async for group in find_duplicate_users(session)]
            pets = [group async for group in find_duplicate_pets(session)]

    assert (len(users), len(pets)) == (NUMBER // 2, NUMBER // 2)
    assert (turns.most["load"], turns.most["keys_of"]) == (chunks.SLICE, chunks.SLICE)


async def test_streams_exports_and_long_pages_are_made_in_slices(session: AsyncSession, turns: Turns) -> None:
    await create_users(session, (UserCreate(name=f"Ada {n}") for n in range(NUMBER)))
    await create_pets(session, (PetCreate(name=f"Rex {n}") for n in range(NUMBER)))
    session.expunge_all()

    with loads_noted(turns):
        async with turns.counted():
            assert len([pet async for pet in stream_pets(session)]) == NUMBER
            assert len([user async for user in stream_users(session)]) == NUMBER
            assert len((await list_pets(session, limit=1000)).items) == 1000
            assert await export_pets(session, io.StringIO()) == NUMBER

    assert (turns.most["load"], turns.most["_cells"]) == (chunks.SLICE, chunks.SLICE)


async def test_similar_rows_are_looked_for_in_slices_and_only_they_are_loaded(
    session: AsyncSession, turns: Turns
) -> None:
    await create_users(session, (UserCreate(name="Walk-in", phone=f"030 {1_000_000 + n}") for n in range(NUMBER)))

    with loads_noted(turns):
        async with turns.counted():
            with pytest.raises(SimilarExistsError) as caught:
                await create_user(session, UserCreate(name="walk-in", phone="030 1000007"), on_similar="error")

    assert len(caught.value.candidates) == 1
    assert turns.total("load") == 1
    assert turns.most["keys_of"] == chunks.SLICE


async def test_an_import_does_not_look_through_all_rows_that_a_session_holds(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create_pets(session, (PetCreate(name=f"p{n}", external_ref=f"p{n}") for n in range(5)))
    held = [pet async for pet in stream_pets(session)]
    identity_map = type(session.sync_session.identity_map)
    lists = Counter[str]()

    def values(held_rows: Any) -> Any:
        lists["made"] += 1
        return original(held_rows)

    original = identity_map.values
    monkeypatch.setattr(identity_map, "values", values)
    monkeypatch.setattr(file_format, "BATCH_SIZE", 1)

    await import_pets(session, io.StringIO("external_ref,color\n" + "".join(f"p{n},brown\n" for n in range(5))))

    assert {pet.color for pet in held} == {"brown"}
    assert lists["made"] <= 2  # However many batches there are.


async def test_work_that_takes_long_is_done_in_smaller_slices(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_LONGEST_TURN", 0.01)
    async with turns.counted():
        assert len(await chunks.mapped(turns.noting("work", lambda item: time.sleep(0.006)), range(20))) == 20

    assert turns.most["work"] <= 3


async def test_after_work_that_took_long_the_slices_are_as_large_as_before(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "_LONGEST_TURN", 0.01)
    async with turns.counted():
        await chunks.mapped(turns.noting("work", lambda item: None if item else time.sleep(0.02)), range(400))

    assert turns.most["work"] > 50


async def test_rows_with_long_notes_are_exported_in_smaller_texts(session: AsyncSession, turns: Turns) -> None:
    await create_pets(session, (PetCreate(name="Rex", notes="x" * 10_000) for _ in range(200)))
    sizes = []

    class File(io.StringIO):
        def write(self, text: str, /) -> int:
            turns.note("write")
            sizes.append(len(text))
            return super().write(text)

    async with turns.counted():
        assert await export_pets(session, File()) == 200

    assert max(sizes) < 300_000
    assert turns.most["write"] <= 3


async def test_work_on_no_items_is_none() -> None:
    assert await chunks.mapped(str, []) == []
    assert await chunks.mapped(str, range(3)) == ["0", "1", "2"]
