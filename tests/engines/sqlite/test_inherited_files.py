"""Files that a forked process has inherited."""

import pytest
from sqlalchemy.engine import URL

from ..connections import run_program


@pytest.mark.usefixtures("db")  # It takes away what the program leaves behind.
@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
def test_a_process_that_is_forked_while_its_file_is_in_use_may_not_use_it(migrated_url: URL) -> None:
    program = """
import asyncio, sys
from sqlmodel_alembic_async import Database, PetCreate, count_pets, create_pet
from tests.stress.forks import ended, forked, work

db = Database(sys.argv[1])

async def main():
    async with db.reading() as session:
        before = await count_pets(session)
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))
        code = await ended(forked(in_child))
        await create_pet(session, PetCreate(name="Max"))
    async with db.reading() as session:
        print("rows", await count_pets(session) - before, "exit code", code)
    await db.dispose()

def in_child():
    for _ in range(2):
        try:
            asyncio.run(count())
        except RuntimeError as error:
            print(error)
        asyncio.run(db.dispose())  # What follows has new pools, and is as wrong.

async def count():
    async with db.reading() as session:
        await count_pets(session)

asyncio.run(main())
"""

    lines = run_program(program, migrated_url).splitlines()

    assert lines[-1] == "rows 2 exit code 0"
    assert len(lines) == 3
    assert all("fork while no session is open" in line for line in lines[:2])
