"""More tasks than connections."""

import asyncio
import time

from sqlalchemy.engine import URL

from sqlmodel_alembic_async import (
    Database,
    DatabaseUnavailableError,
    PetCreate,
    count_pets,
    create_pet,
    get_pet,
    list_pets,
)

from .measures import Report, becomes_true, checked_out

SIZE = 5
KINDS = ("session", "reading", "transaction")
TIMEOUT = 0.2


async def crowd(url: URL, *, tasks: int = 200) -> Report:
    """Let readers, writers and plain sessions share a small pool: all of them finish."""
    report = Report()
    report.count("tasks", tasks)
    report.count("errors", 0)
    async with Database(url, pool_size=SIZE, max_overflow=0) as db:
        async with db.reading() as session:
            before = await count_pets(session, archived=None)

        async def write() -> None:
            async with db.transaction() as session:
                pet = await create_pet(session, PetCreate(name="Rex"))
            async with db.reading() as session:
                await get_pet(session, pet.id)

        async def read() -> None:
            async with db.reading() as session:
                await list_pets(session, limit=5)

        async def read_plainly() -> None:
            async with db.session() as session:
                await list_pets(session, limit=5)

        kinds = (write, read, read_plainly, write)

        async def one_task(number: int) -> None:
            began = time.perf_counter()
            try:
                await kinds[number % len(kinds)]()
            except Exception as error:
                report.count("errors")
                report.claim(False, f"{type(error).__name__}: {error}")
            else:
                report.count("done")
            report.took("task", time.perf_counter() - began)

        await asyncio.gather(*(one_task(number) for number in range(tasks)))
        async with db.reading() as session:
            written = await count_pets(session, archived=None) - before
        report.claim(report.counts["done"] == tasks, f"{report.counts['done']} of {tasks} tasks are done")
        report.claim(written == len(range(tasks)[::4]) * 2, f"{written} pets were written")
        report.claim(await becomes_true(lambda: checked_out(db) == 0), f"{checked_out(db)} connections are still lent")
    return report


async def exhaust(url: URL, kind: str) -> Report:
    """Let forgetful callers keep all connections of one kind: the next one is told so after the time-out."""
    report = Report()
    async with Database(url, pool_size=SIZE, max_overflow=0, pool_timeout=TIMEOUT) as db:
        remembered = asyncio.Event()
        held: list[None] = []

        async def forget() -> None:
            async with getattr(db, kind)() as session:
                await count_pets(session)
                held.append(None)
                await remembered.wait()

        # SQLite has one writer, so all but the first of these transactions are refused already.
        callers = [asyncio.create_task(forget()) for _ in range(SIZE)]
        await becomes_true(lambda: len(held) + sum(caller.done() for caller in callers) == SIZE, within=15)
        began = time.perf_counter()
        [refusal] = await asyncio.gather(forget(), return_exceptions=True)
        waited = time.perf_counter() - began
        remembered.set()
        outcomes = [refusal, *await asyncio.gather(*callers, return_exceptions=True)]
        async with getattr(db, kind)() as session:
            await count_pets(session)

        report.took("wait", waited)
        report.count("held", len(held))
        report.claim(bool(held), "no caller had a connection")
        report.claim(TIMEOUT * 0.9 < waited < TIMEOUT + 0.5, f"refused after {waited:.2f} s, not {TIMEOUT} s")
        report.claim(refusal is not None, "the last caller was not refused")
        for outcome in outcomes:
            if outcome is not None:
                report.count("refused")
                reason = "still writing" if (url.get_backend_name(), kind) == ("sqlite", "transaction") else "in use"
                clear = isinstance(outcome, DatabaseUnavailableError) and reason in str(outcome)
                report.claim(clear, f"refused with {type(outcome).__name__}: {outcome}")
        report.claim(await becomes_true(lambda: checked_out(db) == 0), f"{checked_out(db)} connections are still lent")
    return report
