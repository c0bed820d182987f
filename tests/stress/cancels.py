"""Queries that run for seconds and are cancelled or time out."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import text

from sqlmodel_alembic_async import Database, PetCreate, PetUpdate, create_pet, update_pet

from .measures import Report, becomes_true, checked_out, statements_running, threads

PROMPT = 0.3
INTERRUPTED_AFTER = 0.1
_COLUMNS = "name, name_key, sex, birth_date_estimated, status, created_at, updated_at, version"
_VALUES = "'Long', 'long', 'unknown', {false}, 'active', '2024-01-01 00:00:00', '2024-01-01 00:00:00', 1"

# Each would run for more than five seconds.
READS = {
    "sqlite": "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 4e7) SELECT count(*) FROM c",
    "postgresql": "SELECT pg_sleep(8)",
    "mariadb": "SELECT SLEEP(8)",
}
WRITES = {
    "sqlite": "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 4e6)"
    f" INSERT INTO pet ({_COLUMNS}) SELECT {_VALUES.format(false='0')} FROM c RETURNING id",
    "postgresql": f"INSERT INTO pet ({_COLUMNS}) SELECT {_VALUES.format(false='false')}"
    " FROM (SELECT pg_sleep(8)) AS nap RETURNING id",
    "mariadb": f"INSERT INTO pet ({_COLUMNS}) SELECT {_VALUES.format(false='0')}"
    " FROM (SELECT SLEEP(8)) AS nap RETURNING id",
}


async def interrupt(db: Database, engine_name: str, kind: str, *, rounds: int = 3) -> Report:
    """Interrupt a long query of one of KINDS again and again, by cancelling it and by a time-out in turn.

    Each time it returns at once and leaves nothing behind, and the next write does not wait.
    """
    report = Report()
    async with db.transaction() as session:
        pet_id = (await create_pet(session, PetCreate(name="Rex"))).id
    # All that the pools may hold is there before the first thread is counted.
    await asyncio.gather(*(_read(db, "SELECT 1") for _ in range(20)))
    threads_before = threads()
    returned, wrote = [], []
    for number in range(rounds):
        report.count("rounds")
        moment = asyncio.get_running_loop().time() + INTERRUPTED_AFTER
        expected = await _HOWS[number % 2](KINDS[kind](db, engine_name, pet_id), moment)
        report.claim(expected, "the query was not interrupted")
        returned.append(asyncio.get_running_loop().time() - moment)

        began = time.perf_counter()
        async with db.transaction() as session:
            await update_pet(session, pet_id, PetUpdate(color=f"number {number}"))
        wrote.append(time.perf_counter() - began)

    report.took("return", max(returned))
    report.took("next write", max(wrote))
    # A busy machine may hold up one round; a query that is waited for holds up each.
    report.claim(sorted(returned)[rounds // 2] < PROMPT, f"interrupted queries returned after {_shown(returned)} s")
    report.claim(sorted(wrote)[rounds // 2] < PROMPT, f"the next writes took {_shown(wrote)} s")
    report.claim(max(returned + wrote) < 1, f"it took {_shown(returned)} s to return, {_shown(wrote)} s to write")
    async with db.reading() as session:
        left = (await session.exec(text("SELECT count(*) FROM pet WHERE name <> 'Rex'"))).scalar_one()  # type: ignore[call-overload]
    report.claim(left == 0, f"{left} rows of cancelled writes are in")
    await claim_nothing_left(db, threads_before, report)
    return report


async def claim_nothing_left(db: Database, threads_before: int, report: Report) -> None:
    """Claim that no connection is lent, no thread is left and the server is at rest."""
    report.claim(await becomes_true(lambda: checked_out(db) == 0), f"{checked_out(db)} connections are still lent")
    fewer = await becomes_true(lambda: threads() <= threads_before)
    report.claim(fewer, f"{threads()} threads, {threads_before} before")

    async def server_is_quiet() -> bool:
        return await statements_running(db) == 0

    report.claim(await becomes_true(server_is_quiet, within=1), "the server is still at work on a cancelled statement")


async def _read(db: Database, statement: str) -> None:
    async with db.reading() as session:
        await session.exec(text(statement))  # type: ignore[call-overload]


async def _long_read(db: Database, engine_name: str, pet_id: int) -> None:
    await _read(db, READS[engine_name])


async def _long_read_of_a_plain_session(db: Database, engine_name: str, pet_id: int) -> None:
    async with db.session() as session:
        await session.exec(text(READS[engine_name]))  # type: ignore[call-overload]


async def _long_write(db: Database, engine_name: str, pet_id: int) -> None:
    async with db.transaction() as session:
        await update_pet(session, pet_id, PetUpdate(color="never"))
        await session.exec(text(WRITES[engine_name]))  # type: ignore[call-overload]


async def _long_read_in_a_transaction(db: Database, engine_name: str, pet_id: int) -> None:
    async with db.transaction() as session:
        await update_pet(session, pet_id, PetUpdate(color="never"))
        await session.exec(text(READS[engine_name]))  # type: ignore[call-overload]


async def _cancel(work: Awaitable[None], moment: float) -> bool:
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().call_at(moment, task.cancel)
    outcome = (await asyncio.gather(task, return_exceptions=True))[0]
    return isinstance(outcome, asyncio.CancelledError)


async def _time_out(work: Awaitable[None], moment: float) -> bool:
    try:
        async with asyncio.timeout_at(moment):
            await work
    except TimeoutError:
        return True
    return False


KINDS: dict[str, Callable[[Database, str, int], Awaitable[None]]] = {
    "read": _long_read,
    "plain read": _long_read_of_a_plain_session,
    "write": _long_write,
    "read in a transaction": _long_read_in_a_transaction,
}
_HOWS = (_cancel, _time_out)


class LockedByAnotherProcess:
    """Another process holds the write lock of an SQLite file for the length of the block."""

    def __init__(self, path: str) -> None:
        program = (
            "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1], isolation_level=None);"
            "connection.execute('BEGIN IMMEDIATE'); print('locked', flush=True);"
            "sys.stdin.read(); connection.execute('ROLLBACK')"
        )
        self._command = [sys.executable, "-S", "-c", program, path]

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"locked\n"

    def __exit__(self, *error: Any) -> None:
        self._process.communicate()


async def interrupt_waiting_for_another_process(db: Database, *, rounds: int = 3) -> Report:
    """Interrupt transactions that wait for another process's lock, alone and queued one behind the other."""
    report = Report()
    async with db.transaction() as session:
        pet_id = (await create_pet(session, PetCreate(name="Rex"))).id
    await asyncio.gather(*(_read(db, "SELECT 1") for _ in range(20)))
    threads_before = threads()

    async def write() -> None:
        async with db.transaction() as session:
            await update_pet(session, pet_id, PetUpdate(color="red"))

    returned, wrote = [], []
    for number in range(rounds):
        report.count("rounds")
        with LockedByAnotherProcess(str(db.url.database)):
            moment = asyncio.get_running_loop().time() + INTERRUPTED_AFTER
            expected = await asyncio.gather(*(_HOWS[number % 2](write(), moment) for _ in range(1 + number % 2 * 2)))
            report.claim(all(expected), "a waiting transaction was not interrupted")
            returned.append(asyncio.get_running_loop().time() - moment)
        began = time.perf_counter()
        await write()
        wrote.append(time.perf_counter() - began)

    report.took("return", max(returned))
    report.took("next write", max(wrote))
    report.claim(sorted(returned)[rounds // 2] < PROMPT, f"waiting transactions returned after {_shown(returned)} s")
    report.claim(sorted(wrote)[rounds // 2] < PROMPT, f"the next writes took {_shown(wrote)} s")
    report.claim(max(returned + wrote) < 1, f"it took {_shown(returned)} s to return, {_shown(wrote)} s to write")
    await claim_nothing_left(db, threads_before, report)
    return report


def _shown(times: list[float]) -> str:
    return ", ".join(f"{seconds:.2f}" for seconds in times)
