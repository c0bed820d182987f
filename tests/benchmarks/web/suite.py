"""What is measured on one engine: each application on a database of its own, all alive at once."""

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database, migrations

from ... import servers
from .. import rows
from ..timing import interleaved
from .apps import APPS, LISTS
from .client import Connection, Load, load, request

PROJECT = Path(__file__).parents[3]
OPERATIONS = ("get", "list", "create", "update")

Figures = dict[str, dict[str, list[float]]]  # Row, application: one figure a round.


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    pets: int = 10_000
    rounds: int = 12
    seconds: float = 0.7
    clients: int = 16


@dataclass
class Server:
    """The process of one application."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process has used, all its threads included."""
        with Path(f"/proc/{self.pid}/stat").open() as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Suite:
    """Measures all applications on one engine."""

    def __init__(self, engine: str, sizes: Sizes, say: Callable[[str], None]) -> None:
        self.engine = engine
        self.sizes = sizes
        self.say = say
        self.figures: Figures = defaultdict(lambda: defaultdict(list))
        self.failures: dict[str, int] = defaultdict(int)
        self.client_share = 0.0
        self._random = random.Random(0)
        self._created = 10_000_000

    def run(self) -> None:
        """Measure everything in throw-away databases."""
        os.environ["TEST_ALL_ENGINES"] = "1"  # Without a server this fails, and is not passed over.
        with TemporaryDirectory() as folder, ExitStack() as stack:
            served = {}
            for name in APPS:
                url = stack.enter_context(servers.new_database(self.engine, Path(folder)))
                asyncio.run(_prepare(url, self.sizes.pets))
                served[name] = stack.enter_context(_served(name, url))
            asyncio.run(self._measure(served))

    async def _measure(self, served: dict[str, Server]) -> None:
        await self._check(served)
        for name, server in served.items():
            for operation in OPERATIONS:
                await self._load(name, server, operation)  # Opens connections and fills caches; not counted.
        for number in range(self.sizes.rounds):
            self.say(f"{self.engine}: round {number + 1} of {self.sizes.rounds}")
            for operation in OPERATIONS:
                for name in list(interleaved(APPS, number + 1))[-len(APPS) :]:
                    self._note(name, operation, *await self._load(name, served[name], operation))

    async def _load(self, name: str, server: Server, operation: str) -> tuple[Load, float]:
        # New ones in each round: uvicorn closes those that are idle for five seconds.
        connections = [await Connection.open(server.port) for _ in range(self.sizes.clients)]
        cpu = server.cpu_seconds()
        result = await load(connections, lambda: self._request(name, operation), self.sizes.seconds)
        cpu = server.cpu_seconds() - cpu
        for connection in connections:
            connection.close()
        return result, cpu

    def _note(self, name: str, operation: str, result: Load, cpu: float) -> None:
        number = len(result.latencies)
        if result.failures:
            self.failures[f"{name}, {operation}"] += result.failures
        self.client_share = max(self.client_share, result.client_share)
        self.figures[operation][name].append(result.seconds / max(number, 1))
        self.figures[f"{operation}, CPU"][name].append(cpu / max(number, 1))
        if number > 1:
            self.figures[f"{operation}, p99"][name].append(statistics.quantiles(result.latencies, n=100)[98])

    def _request(self, name: str, operation: str) -> bytes:
        if operation == "list":
            return request("GET", LISTS[name])
        if operation == "create":
            self._created += 1
            return request("POST", "/pets", json.dumps(rows.pet_values(self._created), default=str).encode())
        path = f"/pets/{self._random.randint(1, self.sizes.pets)}"
        if operation == "get":
            return request("GET", path)
        return request("PATCH", path, json.dumps({"color": f"color {self._random.randint(1, 1000)}"}).encode())

    async def _check(self, served: dict[str, Server]) -> None:
        """Compare the answers, so that every application does the same work."""
        expected: dict[str, Any] = {}
        for name, server in served.items():
            connection = await Connection.open(server.port)
            answers = {
                "get": request("GET", "/pets/7"),
                "list": request("GET", LISTS[name]),
                "create": request("POST", "/pets", json.dumps(rows.pet_values(1), default=str).encode()),
                "update": request("PATCH", "/pets/8", b'{"color": "white"}'),
                "updated": request("GET", "/pets/8"),
            }
            for operation, sent in answers.items():
                status, body = await connection.send(sent)
                if status >= 300:
                    raise AssertionError(f"{name}: {operation} answered {status}: {body.decode()}")
                shown = _shown(json.loads(body))
                if operation != "update" and shown != expected.setdefault(operation, shown):
                    raise AssertionError(f"{name}: {operation} gave {shown} instead of {expected[operation]}")
            connection.close()


def _shown(answer: Any) -> Any:
    """Return what the applications have in common: their lists have different envelopes."""
    if isinstance(answer, dict) and (items := answer.get("items", answer.get("data"))) is not None:
        answer = items
    if isinstance(answer, list):
        return [_shown(row) for row in answer]
    if answer is None:
        return None
    return {field: answer[field] for field in ("name", "color", "owner_id", "birth_date", "weight_g", "notes")}


async def _prepare(url: URL, pets: int) -> None:
    async with Database(url) as db:
        await migrations.upgrade(database=db)
    await rows.seed(url, 1, pets)


@contextmanager
def _served(name: str, url: URL) -> Iterator[Server]:
    command = [sys.executable, "-m", "tests.benchmarks.web.server", name, url.render_as_string(hide_password=False)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not (port := process.stdout.readline()):
                raise RuntimeError(f"{name} did not start")
            yield Server(int(port), process.pid)
        finally:
            process.kill()
