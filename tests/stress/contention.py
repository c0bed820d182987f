"""Many tasks, and two processes, that read, change and write one row."""

import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable

from sqlmodel_alembic_async import AsyncSession, Database, Pet, PetCreate, create_pet, get_pet

from .measures import Report, becomes_true, checked_out

LONGEST_WAIT = 1.0


async def contend(
    db: Database, *, tasks: int = 100, units: int = 10, longest_wait: float | None = LONGEST_WAIT
) -> Report:
    """Let tasks add to one pet's weight; every unit must be in it."""
    async with db.transaction() as session:
        pet_id = (await create_pet(session, PetCreate(name="Rex", weight_g=1))).id
    report = await _add_to(db, pet_id, tasks, units)
    async with db.reading() as session:
        final = (await get_pet(session, pet_id)).weight_g - 1
    _claim_all(report, final, tasks * units)
    report.claim(checked_out(db) == 0, f"{checked_out(db)} connections are still lent")
    if db.engine.dialect.name == "sqlite" and longest_wait is not None:
        wait = report.longest["wait"]
        report.claim(wait < longest_wait, f"a writer waited for {wait:.2f} s")
    return report


async def contend_by_two_processes(db: Database, *, tasks: int = 50, units: int = 10) -> Report:
    """The same by two processes at once."""
    async with db.transaction() as session:
        pet_id = (await create_pet(session, PetCreate(name="Rex", weight_g=1))).id
    url = db.url.render_as_string(hide_password=False)
    # A fresh interpreter each: a fork would share this one's connections.
    context = multiprocessing.get_context("spawn")
    start, outcomes = context.Barrier(2), context.SimpleQueue()
    processes = [
        context.Process(target=_run_process, args=(url, pet_id, tasks, units, start, outcomes)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    report = Report()
    for process in processes:
        await becomes_true(lambda process=process: process.exitcode is not None, within=120)
        report.claim(process.exitcode == 0, f"a process ended with {process.exitcode}")
        process.kill()
        process.join()
        process.close()
    while not outcomes.empty():
        report.add(outcomes.get())
    outcomes.close()
    async with db.reading() as session:
        final = (await get_pet(session, pet_id)).weight_g - 1
    _claim_all(report, final, 2 * tasks * units)
    return report


def _run_process(url: str, pet_id: int, tasks: int, units: int, start, outcomes) -> None:  # type: ignore[no-untyped-def]
    async def work() -> Report:
        async with Database(url) as db:
            async with db.reading() as session:
                await get_pet(session, pet_id)
            start.wait(60)
            return await _add_to(db, pet_id, tasks, units)

    outcomes.put(asyncio.run(work()))


async def _add_to(db: Database, pet_id: int, tasks: int, units: int) -> Report:
    report = Report()

    async def one_task() -> None:
        for _ in range(units):
            called = time.perf_counter()
            try:
                await db.run_transaction(_timed_addition(pet_id, called, report))
            except Exception as error:
                report.count("errors")
                report.claim(False, f"{type(error).__name__}: {error}")
            else:
                report.count("done")
                report.took("unit", time.perf_counter() - called)

    report.count("units", tasks * units)
    report.count("errors", 0)
    began = time.perf_counter()
    await asyncio.gather(*(one_task() for _ in range(tasks)))
    report.took("round", time.perf_counter() - began)
    return report


def _timed_addition(pet_id: int, called: float, report: Report) -> Callable[[AsyncSession], Awaitable[None]]:
    attempts = 0

    async def add_one(session: AsyncSession) -> None:
        nonlocal attempts
        attempts += 1
        report.count("attempts")
        if attempts == 1:
            report.took("wait", time.perf_counter() - called)
        pet: Pet = await get_pet(session, pet_id)
        pet.weight_g = (pet.weight_g or 0) + 1

    return add_one


def _claim_all(report: Report, final: int, units: int) -> None:
    report.count("final", final)
    report.claim(final == units, f"{final} of {units} units are in the row")
    done = report.counts["done"]
    report.claim(done == units, f"{done} of {units} units were done")
