"""Peak memory, in a process of its own: `python -m tests.benchmarks.peak` reads its task from standard input."""

import asyncio
import json
import resource
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from sqlalchemy.engine import URL, make_url

from . import rows
from .contenders import open_contender

_PROJECT = Path(__file__).parents[2]


def measure(url: URL, contender: str, work: str, number: int) -> dict[str, float]:
    """Return the seconds of the work, and how many MB it took at most: with a tenth of the rows, and with all."""
    task = {"url": url.render_as_string(hide_password=False), "contender": contender, "work": work, "number": number}
    command = [sys.executable, "-m", __name__]
    finished = subprocess.run(command, input=json.dumps(task), cwd=_PROJECT, capture_output=True, text=True)
    if finished.returncode:
        raise RuntimeError(f"{contender}, {work}: {finished.stderr.strip()[-2000:]}")
    return json.loads(finished.stdout)


async def _run(url: str, contender: str, work: str, number: int) -> dict[str, float]:
    opened: Any = await open_contender(contender, make_url(url))
    works = {"stream": _stream, "create": _create}
    # The first statements load modules and fill caches that stay.
    await works[work](opened, 10, first=20_000_000)
    before = _peak()
    await works[work](opened, number // 10, first=30_000_000)
    tenth = _peak()
    started = perf_counter()
    await works[work](opened, number, first=40_000_000)
    seconds = perf_counter() - started
    await opened.close()
    return {"seconds": seconds, "tenth": tenth - before, "all": _peak() - before}


async def _stream(contender: Any, number: int, *, first: int) -> None:
    read = 0
    stream = contender.stream()
    async for _ in stream:
        read += 1
        if read == number:
            break
    await stream.aclose()
    if read != number:
        raise AssertionError(f"{read} rows instead of {number}")


async def _create(contender: Any, number: int, *, first: int) -> None:
    await contender.bulk_pets(rows.pets(first, number))


def _peak() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        # Linux counts the process that started this one into ru_maxrss.
        return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_run(**json.load(sys.stdin)))))
