"""Units of work that are interrupted at any moment, in each way in which hosts do it."""

import asyncio
import gc
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
from sqlalchemy import text
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database, PetCreate, count_pets, create_pet, create_pets, list_pets, stream_pets

from .measures import Report, becomes_true, checked_out

SIZE, OVERFLOW = 2, 1
ROWS = 1500  # More than a page of a stream.
_LONGEST = 0.03  # Seconds. Each unit takes about as long.
_CONNECTIONS = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()",
    "mysql": "SELECT count(*) FROM information_schema.processlist WHERE db = database()",
}
_EAGER = getattr(asyncio, "eager_task_factory", None)  # Since Python 3.12.

Unit = Callable[[], Awaitable[None]]


async def _by_timeout(unit: Unit, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await unit()


async def _by_anyio(unit: Unit, seconds: float) -> None:
    with anyio.move_on_after(seconds):  # It cancels again at every await, as FastAPI's hosts do.
        await unit()


async def _twice(unit: Unit, seconds: float) -> None:
    task = asyncio.ensure_future(unit())
    for _ in range(2):
        await asyncio.sleep(seconds)
        task.cancel()
        seconds = 0
    await asyncio.wait([task])
    if not task.cancelled():
        await task


HOWS: dict[str, Callable[[Unit, float], Awaitable[None]]] = {
    "timeout": _by_timeout,
    "anyio": _by_anyio,
    "twice": _twice,
}
TASKS = ["lazy", *(["eager"] if _EAGER else [])]


async def interrupt(url: URL, how: str, tasks: str = "lazy", *, rounds: int, seed: int | None = None) -> Report:
    """Interrupt units one after the other, then many at once: every connection comes back, and nothing complains."""
    report = Report()
    loop = asyncio.get_running_loop()
    with _complaints(loop) as complaints:
        if tasks == "eager":
            loop.set_task_factory(_EAGER)
        try:
            async with Database(url, pool_size=SIZE, max_overflow=OVERFLOW, pool_timeout=5) as db:
                await _interrupt_all(db, how, random.Random(seed), rounds, report)
                await _claim_full_pools(db, report)
        finally:
            loop.set_task_factory(None)
        gc.collect()
        await asyncio.sleep(0)
    report.claim(not complaints, f"complaints: {complaints[:3]}")
    await claim_no_connection(url, report)
    return report


async def _interrupt_all(db: Database, how: str, dice: random.Random, rounds: int, report: Report) -> None:
    units = _units(db)
    async with db.transaction() as session:
        if await count_pets(session) < ROWS:
            await create_pets(session, [PetCreate(name=f"Rex {number}") for number in range(ROWS)])

    async def one(number: int) -> None:
        report.count("units")
        try:
            await HOWS[how](units[number % len(units)], dice.uniform(0, _LONGEST))
        except TimeoutError:
            pass
        except Exception as error:
            report.claim(False, f"{type(error).__name__}: {error}")

    for number in range(rounds):
        await one(number)
    for _ in range(0, rounds, 10):
        await asyncio.gather(*(one(number) for number in range(10)))


def _units(db: Database) -> list[Unit]:
    async def stream() -> None:
        async with db.reading(snapshot=True) as session:
            async for _ in stream_pets(session):
                pass

    async def read() -> None:
        async with db.reading() as session:
            await list_pets(session, limit=1000)

    async def write() -> None:
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Never"))
            await list_pets(session, limit=1000)
            await session.rollback()

    async def use_plainly() -> None:
        async with db.session() as session:
            await create_pet(session, PetCreate(name="Never"))
            await list_pets(session, limit=1000)

    return [stream, read, write, use_plainly]


async def _claim_full_pools(db: Database, report: Report) -> None:
    """Claim that as many sessions as the pools are to have are there at once."""
    lent = await becomes_true(lambda: checked_out(db) == 0)
    report.claim(lent, f"{checked_out(db)} connections are still lent")
    for open_session in (db.session, db.reading):
        every = asyncio.Barrier(SIZE + OVERFLOW)

        async def hold(open_session: Any = open_session, every: asyncio.Barrier = every) -> None:
            async with open_session() as session:
                await count_pets(session)
                await every.wait()

        try:
            async with asyncio.timeout(10):
                await asyncio.gather(*(hold() for _ in range(SIZE + OVERFLOW)))
        except Exception as error:
            report.claim(False, f"{open_session.__name__}: a connection is lost: {type(error).__name__}: {error}")


async def claim_no_connection(url: URL, report: Report) -> None:
    """Claim that nothing is connected to the database any more."""
    async with Database(url) as other:
        if (query := _CONNECTIONS.get(other.engine.dialect.name)) is None:
            return

        async def is_alone() -> bool:
            async with other.engine.connect() as connection:
                return int((await connection.execute(text(query))).scalar_one()) == 1

        report.claim(await becomes_true(is_alone), "the server still has connections of a database that was disposed")


@contextmanager
def _complaints(loop: asyncio.AbstractEventLoop) -> Iterator[list[str]]:
    """Collect what the event loop reports, and what is logged as an error."""
    found: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda loop, context: found.append(f"{context['message']}: {context.get('exception')}"))
    try:
        yield found
    finally:
        loop.set_exception_handler(before)
        logging.getLogger().removeHandler(handler)
