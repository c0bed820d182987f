"""What is measured: figures, claims, connections lent, threads and file descriptors."""

import asyncio
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import Pool

from sqlmodel_alembic_async import Database


@dataclass
class Report:
    """Counts that add up, longest times in seconds, and the claims that did not hold."""

    counts: Counter[str] = field(default_factory=Counter)
    longest: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def count(self, name: str, number: int = 1) -> None:
        self.counts[name] += number

    def took(self, name: str, seconds: float) -> None:
        self.longest[name] = max(self.longest.get(name, 0.0), seconds)

    def claim(self, holds: bool, otherwise: str) -> None:
        if not holds and otherwise not in self.broken:
            self.broken.append(otherwise)

    def add(self, other: "Report") -> None:
        self.counts.update(other.counts)
        for name, seconds in other.longest.items():
            self.took(name, seconds)
        for broken in other.broken:
            self.claim(False, broken)

    def __str__(self) -> str:
        figures = [f"{name} {number}" for name, number in self.counts.items()]
        figures += [f"longest {name} {seconds:.3f} s" for name, seconds in self.longest.items()]
        return ", ".join(figures)


def checked_out(db: Database) -> int:
    """Return how many connections are lent, from all pools of the database."""
    engines: list[AsyncEngine] = [
        getattr(db, name) for name in ("engine", "_writer", "_reader", "_snapshot") if hasattr(db, name)
    ]
    pools: dict[int, Pool] = {id(engine.sync_engine.pool): engine.sync_engine.pool for engine in engines}
    return sum(pool.checkedout() for pool in pools.values())


def threads() -> int:
    # asyncio keeps the threads of to_thread(), and may start another one while the first becomes idle.
    return sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate())


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


async def becomes_true(condition: Callable[[], bool | Awaitable[bool]], within: float = 3.0) -> bool:
    """Wait until a condition holds; tell whether it did in time."""
    end = time.monotonic() + within
    while True:
        holds = condition()
        if holds if isinstance(holds, bool) else await holds:
            return True
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.005)


async def statements_running(db: Database) -> int:
    """Return how many statements the server is working on for this database, this question left out."""
    query = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND state = 'active' AND pid <> pg_backend_pid()",
        "mysql": "SELECT count(*) FROM information_schema.processlist WHERE db = database()"
        " AND command = 'Query' AND id <> connection_id()",
    }.get(db.engine.dialect.name)
    if query is None:
        return 0
    async with db.engine.connect() as connection:
        return int((await connection.execute(text(query))).scalar_one())


async def some_transaction_waits(db: Database) -> bool:
    """Wait until a transaction of this database waits for a lock; tell whether one did in time."""
    if db.engine.dialect.name == "sqlite":
        await asyncio.sleep(0)  # One step takes a transaction into the queue of writers.
        return True

    async def one_waits() -> bool:
        async with db.engine.connect() as connection:
            return await _waits(connection)

    return await becomes_true(one_waits, within=10)


async def _waits(connection: AsyncConnection) -> bool:
    if connection.dialect.name == "postgresql":
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return bool((await connection.execute(text(query))).scalar_one())
    # information_schema.innodb_trx is a cache that is not refreshed while somebody polls it.
    status = (await connection.execute(text("SHOW ENGINE INNODB STATUS"))).one()[2]
    waiting = re.findall(r"^LOCK WAIT .*\n(?:MariaDB|MySQL) thread id (\d+)", status, re.MULTILINE)
    ours = await connection.execute(text("SELECT id FROM information_schema.processlist WHERE db = database()"))
    return not {int(thread) for thread in waiting}.isdisjoint(ours.scalars())
