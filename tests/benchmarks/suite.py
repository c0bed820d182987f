"""What is measured on one engine: everything on a small table first, then on a large one."""

import asyncio
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database, migrations

from .. import servers
from . import peak, rows
from .checks import check_reads, check_small
from .contenders import CONTENDERS, CORE, OURS, open_contender
from .timing import Slow, concurrently, interleaved, timed

Figures = dict[str, dict[str, list[float]]]  # Row, contender: one figure a round.

_SMALL = 1000
_FEWER = 3  # Rounds of what takes seconds.


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rows: int = 1_000_000
    rounds: int = 11
    calls: int = 100
    bulk: int = 10_000
    tasks: int = 50


class Suite:
    """Measures all contenders on one engine."""

    def __init__(self, engine: str, sizes: Sizes, say: Callable[[str], None]) -> None:
        self.engine = engine
        self.sizes = sizes
        self.say = say
        self.figures: Figures = defaultdict(lambda: defaultdict(list))
        self.errors: dict[str, int] = {}

    def run(self) -> None:
        """Measure everything in throw-away databases."""
        os.environ["TEST_ALL_ENGINES"] = "1"  # Without a server this fails, and is not passed over.
        with TemporaryDirectory() as folder:
            with servers.new_database(self.engine, Path(folder)) as url:
                asyncio.run(self._measure(url))
                self._stream(url)
            with servers.new_database(self.engine, Path(folder)) as url:
                asyncio.run(_migrate(url))
                self._memory_of_creating(url)

    async def _measure(self, url: URL) -> None:
        await _migrate(url)
        await rows.seed(url, 1, _SMALL)
        contenders = {name: await open_contender(name, url) for name in CONTENDERS}
        reference = contenders[CORE]
        for name, contender in contenders.items():
            await check_small(name, contender, reference, _SMALL)
        await self._one_by_one(contenders)
        await self._mixed(contenders)
        await self._reads(contenders, "search, small", None)
        await self._bulk(contenders)
        self._progress("seeding")
        await rows.seed(url, _SMALL + 1, self.sizes.rows)
        depth = self.sizes.rows - rows.PAGE
        for name, contender in contenders.items():
            await check_reads(name, contender, reference, depth)
        await self._reads(contenders, "search", depth)
        for contender in contenders.values():
            await contender.close()

    async def _one_by_one(self, contenders: dict[str, Any]) -> None:
        self._progress("create, get, list, update, delete")
        first = 10_000_000
        for name in interleaved(CONTENDERS, self.sizes.rounds):
            contender = contenders[name]
            ids = await self._note(name, "create", contender.create, [(v,) for v in rows.pets(first, self.sizes.calls)])
            first += self.sizes.calls
            await self._note(name, "get", contender.get, [(pet_id,) for pet_id in ids])
            await self._note(name, "list", contender.page, [(None,)] * (self.sizes.calls // 4))
            await self._note(name, "update", contender.update, [(pet_id, "white") for pet_id in ids])
            changed = await contenders[CORE].count(color="white")
            await self._note(name, "delete", contender.delete, [(pet_id,) for pet_id in ids])
            left = await contenders[CORE].count()
            if (changed, left) != (len(ids), _SMALL):
                raise AssertionError(f"{name}: updated {changed} of {len(ids)}, and left {left} of {_SMALL}")

    async def _mixed(self, contenders: dict[str, Any]) -> None:
        self._progress(f"{self.sizes.tasks} tasks")
        slow = Slow()
        for name in interleaved(CONTENDERS, min(self.sizes.rounds, _FEWER)):
            if slow.skip(name):
                continue
            calls = max(self.sizes.calls // 10, 4)
            seconds, latencies, errors = await concurrently(contenders[name], self.sizes.tasks, calls, _SMALL)
            slow.note(name, seconds * len(latencies))
            centiles = statistics.quantiles(latencies, n=100)
            self.figures["mixed"][name].append(seconds)
            self.figures["mixed, p50"][name].append(centiles[49])
            self.figures["mixed, p99"][name].append(centiles[98])
            self.errors[name] = self.errors.get(name, 0) + len(errors)

    async def _bulk(self, contenders: dict[str, Any]) -> None:
        number = self.sizes.bulk
        first = 50_000_000
        for kind, make in (("bulk pets", rows.pets), ("bulk users", rows.users)):
            self._progress(kind)
            slow = Slow()
            for name in interleaved(CONTENDERS, min(self.sizes.rounds, _FEWER)):
                if slow.skip(name):
                    continue
                work = getattr(contenders[name], kind.replace(" ", "_"))
                await self._note(name, kind, work, [(list(make(first, number)),)])
                slow.note(name, self.figures[kind][name][-1])
                if (removed := await contenders[CORE].remove_bulk(kind)) != number:
                    raise AssertionError(f"{name}: {kind} inserted {removed} instead of {number}")
                first += number

    async def _reads(self, contenders: dict[str, Any], search: str, depth: int | None) -> None:
        self._progress("search" if depth is None else "pages and search")
        places = {} if depth is None else {name: await one.place(depth) for name, one in contenders.items()}
        for name in interleaved(CONTENDERS, min(self.sizes.rounds, _FEWER)):
            contender = contenders[name]
            many = self.sizes.calls // 4
            await self._note(name, search, contender.search, [(rows.PREFIX,)] * many, budget=0.5)
            if places:
                await self._note(name, "first page", contender.page, [(None,)] * many, budget=0.5)
                await self._note(name, "deep page", contender.page, [(places[name],)] * many, budget=0.5)

    def _stream(self, url: URL) -> None:
        for name in CONTENDERS:
            self._progress(f"stream, {name}")
            measured = peak.measure(url, name, "stream", self.sizes.rows)
            self.figures["stream"][name].append(measured["seconds"])
            self.figures["stream, memory"][name].append(measured["all"])
            self.figures["stream, memory of a tenth"][name].append(measured["tenth"])

    def _memory_of_creating(self, url: URL) -> None:
        self._progress("memory of creating")
        asyncio.run(rows.seed(url, 1, _SMALL))
        measured = peak.measure(url, OURS, "create", self.sizes.rows)
        self.figures["create all"][OURS].append(measured["seconds"])
        self.figures["create all, memory"][OURS].append(measured["all"])
        self.figures["create all, memory of a tenth"][OURS].append(measured["tenth"])

    async def _note(
        self, name: str, row: str, operation: Any, arguments: list[tuple[Any, ...]], **options: Any
    ) -> list[Any]:
        results, seconds = await timed(operation, arguments, **options)
        self.figures[row][name].append(seconds)
        return results

    def _progress(self, what: str) -> None:
        self.say(f"{self.engine}: {what}")


async def _migrate(url: URL) -> None:
    async with Database(url) as db:
        await migrations.upgrade(database=db)


def import_times(rounds: int) -> dict[str, list[float]]:
    """Return the seconds of importing the package, and of importing what it is made of alone."""
    times: dict[str, list[float]] = defaultdict(list)
    for name in interleaved(("sqlmodel, alembic", "sqlmodel_alembic_async"), rounds):
        code = f"import time; started = time.perf_counter(); import {name}; print(time.perf_counter() - started)"
        times[name].append(float(subprocess.check_output([sys.executable, "-c", code])))
    return times
