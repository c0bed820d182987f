"""Run the stress campaign: `python -m tests.stress [--engine sqlite] [--scenario bank] [--minutes 5]`.

One line for each scenario and engine; the exit code is 1 if a claim does not hold.
"""

import argparse
import asyncio
import faulthandler
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database, migrations

from ..servers import ENGINES, new_database
from . import bank, cancels, contention, forks, interruptions, kills, loops, pools
from .measures import Report, becomes_true, descriptors, threads

# One round of a scenario; rounds are repeated until the time is over.
Round = Callable[[URL, str], Awaitable[Report]]


async def _contention(url: URL, engine: str) -> Report:
    async with Database(url) as db:
        return await contention.contend(db, tasks=100, units=10)


async def _larger_contention(url: URL, engine: str) -> Report:
    async with Database(url) as db:
        return await contention.contend(db, tasks=200, units=10)


async def _processes(url: URL, engine: str) -> Report:
    async with Database(url) as db:
        return await contention.contend_by_two_processes(db, tasks=50, units=10)


async def _bank(url: URL, engine: str) -> Report:
    async with Database(url) as db:
        return await bank.move_pets(db, tasks=50, moves=20)


async def _cancels(url: URL, engine: str) -> Report:
    report = Report()
    async with Database(url) as db:
        for kind in cancels.KINDS:
            report.add(await cancels.interrupt(db, engine, kind, rounds=10))
        if engine == "sqlite":
            report.add(await cancels.interrupt_waiting_for_another_process(db, rounds=10))
    return report


async def _pools(url: URL, engine: str) -> Report:
    report = await pools.crowd(url, tasks=200)
    for kind in pools.KINDS:
        report.add(await pools.exhaust(url, kind))
    return report


async def _interruptions(url: URL, engine: str) -> Report:
    report = Report()
    for how in interruptions.HOWS:
        for tasks in interruptions.TASKS:
            report.add(await interruptions.interrupt(url, how, tasks, rounds=100))
    return report


async def _loops(url: URL, engine: str) -> Report:
    return await asyncio.to_thread(loops.share, url, tasks=20, rounds=5)


async def _forks(url: URL, engine: str) -> Report:
    return await asyncio.to_thread(forks.fork, url.render_as_string(hide_password=False))


SCENARIOS: dict[str, Round] = {
    "contention": _contention,
    "larger-contention": _larger_contention,
    "processes": _processes,
    "bank": _bank,
    "cancels": _cancels,
    "interruptions": _interruptions,
    "pools": _pools,
    "loops": _loops,
    "forks": _forks,
}
KILLS = {"sqlite": 50, "postgresql": 15, "mariadb": 15}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("--engine", action="append", choices=ENGINES, help="all of them by default")
    parser.add_argument("--scenario", action="append", choices=[*SCENARIOS, "kills"], help="all of them by default")
    parser.add_argument("--minutes", type=float, default=5, help="about how long; 5 by default")
    asked = parser.parse_args()
    runs = [
        (scenario, engine)
        for scenario in asked.scenario or [*SCENARIOS, "kills"]
        for engine in asked.engine or ENGINES
        if engine == "sqlite" or scenario != "processes"
    ]
    # Whatever hangs shows where it does, and ends the campaign.
    faulthandler.dump_traceback_later(asked.minutes * 60 + 300, exit=True)
    end = time.monotonic() + asked.minutes * 60
    broken = 0
    for number, (scenario, engine) in enumerate(runs):
        share = (end - time.monotonic()) / (len(runs) - number)
        try:
            report = _run(scenario, engine, share)
        except pytest.skip.Exception as skipped:
            print(f"{scenario:17} {engine:10} skipped: {skipped}", flush=True)  # noqa: T201  # it is a command
            continue
        print(f"{scenario:17} {engine:10} {report}", flush=True)  # noqa: T201
        for claim in report.broken:
            print(f"{'':17} BROKEN     {claim}", flush=True)  # noqa: T201
        broken += len(report.broken)
    faulthandler.cancel_dump_traceback_later()
    return 1 if broken else 0


def _run(scenario: str, engine: str, seconds: float) -> Report:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        url = stack.enter_context(new_database(engine, folder))
        asyncio.run(_migrate(url))
        end = time.monotonic() + seconds
        if scenario == "kills":
            report = _kill(url, engine)
        else:
            report = asyncio.run(_repeat(SCENARIOS[scenario], url, engine, end))
            if scenario != "processes":  # Those have threads and descriptors of their own.
                _claim_all_returned(report)
        if engine == "sqlite":
            verdict = kills.integrity(str(url.database))
            report.claim(verdict == "ok", f"PRAGMA integrity_check: {verdict}")
        return report


async def _migrate(url: URL) -> None:
    async with Database(url) as db:
        await migrations.upgrade(database=db)


def _kill(url: URL, engine: str) -> Report:
    return kills.kill_while_creating(url.render_as_string(hide_password=False), kills=KILLS[engine])


async def _repeat(one_round: Round, url: URL, engine: str, end: float) -> Report:
    report = Report()
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context["message"]))
    await asyncio.to_thread(int)  # The event loop's own thread for such calls stays.
    before = threads(), descriptors()
    while True:
        report.count("rounds run")
        report.add(await one_round(url, engine))
        if report.broken or time.monotonic() >= end:
            break
    await becomes_true(lambda: threads() <= before[0] and descriptors() <= before[1])
    report.count("threads before", before[0])
    report.count("threads after", threads())
    report.count("descriptors before", before[1])
    report.count("descriptors after", descriptors())
    report.count("complaints of the event loop", len(complaints))
    return report


def _claim_all_returned(report: Report) -> None:
    for name in ("threads", "descriptors"):
        before, after = report.counts[f"{name} before"], report.counts[f"{name} after"]
        report.claim(after <= before, f"{after} {name}, {before} before")


if __name__ == "__main__":
    sys.exit(main())
