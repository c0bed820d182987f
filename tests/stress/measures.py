"""What is measured: figures, claims, connections lent, threads and file descriptors."""

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
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
    return threading.active_count()


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
