"""A process that is killed in the middle of a bulk create."""

import asyncio
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from typing import Any

from sqlmodel import func, select

from sqlmodel_alembic_async import Database, Pet, PetCreate, create_pets

from .measures import Report

BATCH = 3000


def kill_while_creating(url: str, *, kills: int = 50, seed: int | None = None) -> Report:
    """Kill -9 process after process while it creates batches of pets, and look at what is in the database."""
    dice = random.Random(seed)
    report = Report()
    # The package is imported once; each process to be killed is a fork of that single-threaded server.
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    acknowledged: list[str] = []
    for number in range(kills):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_create_batches, args=(url, f"{number}", theirs))
        process.start()
        theirs.close()
        began = [_heard(ours)]
        time.sleep(dice.uniform(0, 0.4))  # Any moment will do: that is what is tested.
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        report.count("kills")
        report.claim(process.exitcode == -signal.SIGKILL, f"the process ended by itself: {process.exitcode}")
        process.close()
        while (line := _heard(ours)) is not None:
            began.append(line)
        ours.close()
        report.claim(began[0] is not None, "the process did not begin")
        acknowledged += [line.removeprefix("done ") for line in began if line and line.startswith("done ")]
        report.count("in the middle of a batch", bool(began[-1] and began[-1].startswith("begin ")))
    report.count("acknowledged", len(acknowledged))

    counted = asyncio.run(_count_batches(url))
    partial = {batch: number for batch, number in counted.items() if number != BATCH}
    lost = [batch for batch in acknowledged if batch not in counted]
    report.count("batches in", len(counted))
    report.count("partial", len(partial))
    report.count("lost", len(lost))
    report.claim(not partial, f"partial batches: {partial}")
    report.claim(not lost, f"acknowledged and lost: {lost}")
    return report


def integrity(path: str) -> str:
    """Return what SQLite itself says about a file; "ok" if all is well."""
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


def _create_batches(url: str, name: str, pipe: Any) -> None:
    async def work() -> None:
        async with Database(url) as db:
            number = 0
            while True:
                number += 1
                batch = f"{name}-{number}"
                pets = [PetCreate(name="Rex", breed=batch) for _ in range(BATCH)]
                async with db.transaction() as session:
                    pipe.send_bytes(f"begin {batch}".encode())
                    await create_pets(session, pets)
                pipe.send_bytes(f"done {batch}".encode())

    asyncio.run(work())


def _heard(pipe: Any) -> str | None:
    try:
        return str(pipe.recv_bytes(), "utf-8")
    except EOFError:
        return None


async def _count_batches(url: str) -> dict[str, int]:
    async with Database(url) as db, db.reading() as session:
        counts = await session.exec(select(Pet.breed, func.count()).group_by(Pet.breed))
        return {str(batch): number for batch, number in counts}
