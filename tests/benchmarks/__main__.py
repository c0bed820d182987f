"""`python -m tests.benchmarks`: measure, print the tables and the goals, and draw the chart.

The exit status tells only whether everything ran: a missed goal is printed as missed.
"""

import argparse
import json
import os
import platform
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from ..servers import ENGINES
from . import report
from .chart import chart
from .suite import Sizes, Suite, import_times

_CHART = Path(__file__).with_name("benchmarks.svg")
_QUICK = Sizes(rows=2000, rounds=1, calls=10, bulk=100)
_PACKAGES = ("sqlmodel", "sqlalchemy", "aiosqlite", "asyncpg", "asyncmy", "advanced-alchemy", "fastcrud")


def main() -> None:
    options = _options()
    sizes = _QUICK if options.quick else Sizes()
    sizes = replace(sizes, rows=options.rows or sizes.rows, rounds=options.rounds or sizes.rounds)
    if sizes.rows < 2000:
        raise SystemExit("--rows must be at least 2000")
    titles = report.row_titles(sizes.rows, sizes.bulk, sizes.tasks)
    started = perf_counter()
    imports = import_times(5 if options.quick else 15)
    results = {}
    _print(_header())
    for engine in options.engine or ENGINES:
        suite = Suite(engine, sizes, _progress)
        suite.run()
        results[engine] = suite.figures
        _print(f"\n## {report.TITLES[engine]}\n\n{report.table(suite.figures, titles)}")
        for name, number in suite.errors.items():
            if number:
                _print(f"\n{name}: {number} calls of the {sizes.tasks} tasks failed, and are not counted.")
        if options.json:  # After each engine: a run takes minutes, and what it found is worth keeping.
            options.json.write_text(json.dumps({"results": results, "imports": imports, "titles": titles}))
    goals = list(report.goals(results, imports, titles))
    _print("\n## Goals\n\n" + "\n".join(map(str, goals)))
    _print(f"\n{sum(goal.reached for goal in goals)} of {len(goals)} reached")
    if path := options.chart or (None if options.quick else _CHART):
        path.write_text(chart(results, titles), encoding="utf-8")
    _progress(f"{perf_counter() - started:.0f} seconds")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, not how fast it is")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="this engine only; may be repeated")
    parser.add_argument("--rows", type=int, help="rows of the large table")
    parser.add_argument("--rounds", type=int, help="rounds of each cell, of which the median counts")
    parser.add_argument(
        "--chart", type=Path, help=f"where to draw the chart (default: {_CHART.name}; --quick: nowhere)"
    )
    parser.add_argument("--json", type=Path, help="where to write every figure")
    return parser.parse_args()


def _header() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.system()}; {packages}"


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
