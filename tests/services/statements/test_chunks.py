"""What is done with many rows lets the event loop go on."""

import asyncio
import io
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
    User,
    UserCreate,
    create_pets,
    create_users,
    export_pets,
    find_duplicate_pets,
    find_duplicate_users,
    import_pets,
    list_pets,
    stream_pets,
    stream_users,
)
from sqlmodel_alembic_async.services.csv_files import batch_import, exporting, owner_matching, pet_matching
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


async def test_work_on_no_items_is_none() -> None:
    assert await chunks.mapped(str, []) == []
    assert await chunks.mapped(str, range(3)) == ["0", "1", "2"]
