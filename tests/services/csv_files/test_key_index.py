"""What an import remembers of a whole file."""

import asyncio
import io
import tracemalloc
from typing import Any

import pytest

from sqlmodel_alembic_async import AsyncSession, StorageError, count_pets, import_pets
from sqlmodel_alembic_async.services.csv_files import key_index
from sqlmodel_alembic_async.services.csv_files.key_index import KeyIndex

# It takes seconds, as a million keys do.
_LONG = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50000000) SELECT max(i), 1 FROM n"


@pytest.mark.parametrize("statement", ["_INSERT_REPEATED_PET_KEYS", "_REPEATED_OWNER_KEYS"])
async def test_keys_are_sorted_beside_the_event_loop_until_that_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setattr(key_index, statement, _LONG)
    nobody: Any = None
    task = asyncio.create_task(import_pets(nobody, io.StringIO("name,external_ref\nRex,p1\n")))

    await asyncio.sleep(0.05)  # The loop goes on.
    assert not task.done()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)

    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("pages", [5, 20, 34])
async def test_a_key_index_that_is_full_is_told_and_nothing_is_written(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    monkeypatch.setattr(key_index, "_TABLES", f"PRAGMA max_page_count = {pages}; {key_index._TABLES}")
    lines = "".join(f"Rex,p{number},Ada {number}\n" for number in range(1000))
    keyed = "name,external_ref,owner_name\n" + lines

    with pytest.raises(StorageError, match="the temporary storage is full") as caught:
        await import_pets(session, io.StringIO(keyed))

    assert str(caught.value.__cause__) == "sqlite3.OperationalError SQLITE_FULL"
    assert await count_pets(session) == 0


async def test_memory_does_not_grow_with_keys_that_are_on_two_lines() -> None:
    with KeyIndex() as key_index:
        for line in range(20_000):
            owner = {"email": f"ada{line // 2}@example.com", "city" if line % 2 else "notes": "Berlin"}
            key_index.add_row(line, [("external_ref", f"p{line // 2}")], [], {})
            key_index.add_row(20_000 + line, [], [("email", owner["email"])], owner)
        tracemalloc.start()
        await key_index.build()
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert key_index.other_line_with(("external_ref", "p7"), 14) == 15
        merged, contradiction = key_index.merged_owner(20_014, {"email": "ada7@example.com"})
    assert (merged, contradiction) == ({"email": "ada7@example.com", "city": "Berlin", "notes": "Berlin"}, None)
    assert size < 500_000


@pytest.mark.parametrize("keys", [[("email", "ada@example.com")], []])
def test_few_owners_wait_to_be_inserted_where_they_are_long(keys: list[tuple[str, str]]) -> None:
    with KeyIndex() as key_index:
        tracemalloc.start()
        for line in range(400):
            key_index.add_row(line, [], keys, {"notes": f"{line} " + "x" * 100_000})
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert peak < 3_000_000
