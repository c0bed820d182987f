"""How long one callback of the event loop takes: `python -m tests.benchmarks.stalls`.

It counts the CPU time of the loop's own thread in one callback: for that long, everything else in the process
waits. The exit status tells whether every callback stayed below the limit. What the process holds before the work
begins is kept out of the garbage collector, which takes its time in whatever program there is.
"""

import argparse
import asyncio
import csv
import gc
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    export_pets,
    find_duplicate_pets,
    find_duplicate_users,
    import_pets,
    migrations,
    stream_pets,
)
from sqlmodel_alembic_async.services.csv_files.file_format import COLUMNS

from ..servers import ENGINES, new_database

LIMIT = 0.05  # Seconds.

Work = Callable[[AsyncSession], Awaitable[object]]


@contextmanager
def longest_callbacks(found: list[float]) -> Iterator[None]:
    """Note the CPU seconds of every callback that any event loop runs meanwhile."""
    run: Any = asyncio.events.Handle._run

    def measured(handle: asyncio.events.Handle) -> None:
        started = thread_time()
        run(handle)
        found.append(thread_time() - started)

    asyncio.events.Handle._run = measured  # type: ignore[method-assign]  # there is no other way to see all of them
    try:
        yield
    finally:
        asyncio.events.Handle._run = run  # type: ignore[method-assign]  # as it was


def main() -> None:
    options = _options()
    worst = 0.0
    for engine in options.engine or ENGINES:
        _print(f"\n## {engine}, {options.rows} rows\n\n{'':24}{'seconds':>9}{'callbacks':>11}{'longest ms':>12}")
        with tempfile.TemporaryDirectory() as folder, new_database(engine, Path(folder)) as url:
            _write(Path(folder) / "first.csv", options.rows)
            _write(Path(folder) / "changed.csv", options.rows, changed=True)
            worst = max(worst, asyncio.run(_measure(Database(url), Path(folder), options.only)))
    sys.exit(f"{worst * 1000:.0f} ms are more than {LIMIT * 1000:.0f}" if worst > LIMIT else 0)


async def _measure(db: Database, folder: Path, only: str | None) -> float:
    worst = 0.0
    works: dict[str, tuple[bool, Work]] = {
        "import": (True, lambda session: import_pets(session, folder / "first.csv")),
        "import again": (True, lambda session: import_pets(session, folder / "first.csv")),
        "import changes": (True, lambda session: import_pets(session, folder / "changed.csv")),
        "find_duplicate_users": (False, lambda session: _count(find_duplicate_users(session))),
        "find_duplicate_pets": (False, lambda session: _count(find_duplicate_pets(session))),
        "stream_pets": (False, lambda session: _count(stream_pets(session))),
        "export_pets": (False, lambda session: export_pets(session, folder / "out.csv")),
    }
    async with db:
        await migrations.upgrade(database=db)
        for name, (writes, work) in works.items():
            if only and name != "import" and only not in name:
                continue
            callbacks: list[float] = []
            gc.collect()
            gc.freeze()
            await asyncio.sleep(0)
            started = perf_counter()
            async with db.transaction() if writes else db.reading(snapshot=True) as session:
                with longest_callbacks(callbacks):
                    await work(session)
            _print(f"{name:24}{perf_counter() - started:9.2f}{len(callbacks):11}{max(callbacks) * 1000:12.1f}")
            worst = max(worst, *callbacks)
    return worst


async def _count(items: AsyncIterator[Any]) -> int:
    number = 0
    async for _ in items:
        number += 1
    return number


def _write(path: Path, number: int, *, changed: bool = False) -> None:
    """Write pets with every column; four in a row have one owner, and one owner in five looks like another one."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(_row(n, "changed" if changed else "first") for n in range(number))


def _row(n: int, version: str) -> dict[str, object]:
    owner = n // 4
    alike = owner // 5 * 5
    return {
        "name": f"Rex {n % 5000}",
        "species": "dog",
        "breed": "Mixed Breed",
        "color": version,
        "sex": "male",
        "neutered": "true",
        "birth_date": f"2020-05-{n % 28 + 1:02}",
        "birth_date_estimated": "false",
        "weight_g": 12500,
        "microchip": 276098 * 10**9 + n,
        "external_ref": f"p{n}",
        "notes": "Afraid of thunder.",
        "status": "deceased",
        "deceased_on": "2024-01-01",
        "acquired_on": "2021-01-01",
        "owner_name": f"Ada {alike}",
        "owner_email": f"ada{owner}@example.com",
        "owner_external_ref": f"u{owner}",
        "owner_phone": f"+49 30 {10_000_000 + alike}",
        "owner_address": "Invalidenstr. 116",
        "owner_city": version,
        "owner_postal_code": "10115",
        "owner_notes": "Calls in the evening.",
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.stalls", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--engine", action="append", choices=ENGINES, help="this engine only; may be repeated")
    parser.add_argument("--only", help="these works only, after the first import: part of the name")
    return parser.parse_args()


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
