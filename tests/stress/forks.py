"""A process that forks after it has used its database, as servers do that load the application first."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from sqlmodel_alembic_async import Database, PetCreate, count_pets, create_pet

from .measures import Report

CHILDREN = 3
WORKS = 5
_PATIENCE = 30  # Seconds, for what would hang.


def fork(url: str) -> Report:
    """Fork a program that has idle connections, in and outside of its event loop: it and its children all work."""
    report = Report()
    for where in ("outside", "inside"):
        outcome = asyncio.run(_run(url, where))
        report.count("forks", CHILDREN)
        report.claim(outcome == "", f"{where} of the event loop: {outcome}")
    return report


async def _run(url: str, where: str) -> str:
    command = [
        sys.executable,
        "-W",
        "error",
        "-W",
        "ignore:This process:DeprecationWarning",
        "-m",
        __name__,
        url,
        where,
    ]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 2 * _PATIENCE)
    return output.decode() if process.returncode or output else ""


# The program.


async def work(db: Database) -> None:
    """Write and read, from several tasks at once."""

    async def one() -> None:
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Rex"))
        async with db.reading() as session:
            await count_pets(session)

    async with asyncio.timeout(_PATIENCE):
        await asyncio.gather(*(one() for _ in range(WORKS)))


def forked(function: Callable[[], object]) -> int:
    """Call a function in a child process, and return that one's id; the child ends with it, 1 for an error."""
    if process := os.fork():
        return process
    status = 1
    try:
        function()
        status = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


async def ended(process: int) -> int:
    """Wait for a child process and return its exit code."""
    _, status = await asyncio.to_thread(os.waitpid, process, 0)
    return os.waitstatus_to_exitcode(status)


async def _work_and_fork(db: Database, *, forks: bool) -> None:
    await work(db)
    for _ in range(CHILDREN if forks else 0):
        child = forked(lambda: asyncio.run(work(db)))
        await work(db)
        if code := await ended(child):
            raise SystemExit(f"a child ended with {code}")
    await work(db)


def _main(url: str, where: str) -> None:
    db = Database(url)

    async def count() -> int:
        async with db.reading() as session:
            return await count_pets(session)

    before = asyncio.run(count())
    asyncio.run(_work_and_fork(db, forks=where == "inside"))
    units = 2 * CHILDREN + 2 if where == "inside" else CHILDREN + 3
    if where == "outside":
        children = [forked(lambda: asyncio.run(work(db))) for _ in range(CHILDREN)]
        asyncio.run(work(db))
        for child in children:
            if code := asyncio.run(ended(child)):
                raise SystemExit(f"a child ended with {code}")
    written = asyncio.run(count()) - before
    if written != units * WORKS:
        raise SystemExit(f"{written} rows were written, not {units * WORKS}")
    asyncio.run(db.dispose())


if __name__ == "__main__":
    _main(*sys.argv[1:])
