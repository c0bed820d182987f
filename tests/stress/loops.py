"""One database in several event loops at once, each in a thread of its own."""

import asyncio
import threading

from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database, PetCreate, count_pets, create_pet, get_pet, list_pets

from .measures import Report

LOOPS = 4
_LONGEST = 120  # Seconds until a loop counts as stuck.


def share(url: URL, *, tasks: int = 10, rounds: int = 3) -> Report:
    """Let four threads read and write through one Database, from its first connection on: every call succeeds."""
    report = Report()
    db = Database(url)
    before = asyncio.run(_counted(Database(url)))
    start = threading.Barrier(LOOPS)

    async def call() -> None:
        report.count("calls")
        try:
            async with db.transaction() as session:
                pet = await create_pet(session, PetCreate(name="Rex"))
            async with db.reading() as session:
                await get_pet(session, pet.id)
            async with db.session() as session:
                await list_pets(session, limit=5)
        except Exception as error:
            report.claim(False, f"{type(error).__name__}: {error}")
        else:
            report.count("done")

    async def call_often() -> None:
        start.wait()
        for _ in range(rounds):
            await asyncio.gather(*(call() for _ in range(tasks)))

    threads = [threading.Thread(target=asyncio.run, args=[call_often()], daemon=True) for _ in range(LOOPS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_LONGEST)
    report.claim(not any(thread.is_alive() for thread in threads), "an event loop is stuck")
    written = asyncio.run(_counted(db)) - before
    report.claim(written == report.counts["done"] == LOOPS * tasks * rounds, f"{written} pets were written")
    return report


async def _counted(db: Database) -> int:
    async with db, db.reading() as session:
        return await count_pets(session)
