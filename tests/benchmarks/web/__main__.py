"""`python -m tests.benchmarks.web`: measure the router for FastAPI beside others, print the tables and the goals.

Each application has one worker of uvicorn, with asyncio's event loop; this process is the client. It needs Linux, and
`pip install -e '.[all,benchmark]'`. The exit status tells only whether everything ran.
"""

import argparse
import json
import os
import platform
import sys
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from . import report
from .suite import Sizes, Suite

_QUICK = Sizes(pets=200, rounds=1, seconds=0.1)
_ENGINES = ("sqlite", "postgresql")
_PACKAGES = ("fastapi", "uvicorn", "sqlmodel", "sqlalchemy", "pydantic", "aiosqlite", "asyncpg", "advanced-alchemy")


def main() -> None:
    options = _options()
    sizes = _QUICK if options.quick else Sizes()
    sizes = replace(sizes, rounds=options.rounds or sizes.rounds)
    results = {}
    _print(_header())
    for engine in options.engine or _ENGINES:
        suite = Suite(engine, sizes, _progress)
        suite.run()
        results[engine] = suite.figures
        _print(f"\n## {report.TITLES[engine]}, {sizes.clients} clients\n\n{report.table(suite.figures)}\n")
        _print(f"The client used at most {suite.client_share:.0%} of a CPU.")
        for name, number in suite.failures.items():
            _print(f"{name}: {number} requests failed, and are not counted.")
        if options.json:
            options.json.write_text(json.dumps(results))
    goals = list(report.goals(results))
    _print("\n## Goals\n\n" + "\n".join(map(str, goals)))
    _print(f"\n{sum(goal.reached for goal in goals)} of {len(goals)} reached")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.web", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, not how fast it is")
    parser.add_argument("--engine", action="append", choices=_ENGINES, help="this engine only; may be repeated")
    parser.add_argument("--rounds", type=int, help="rounds of each cell, of which the first quartile counts")
    parser.add_argument("--json", type=Path, help="where to write every figure")
    return parser.parse_args()


def _header() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in (*_PACKAGES, "fastcrud"))
    parser = "httptools" if find_spec("httptools") else "h11"
    return f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.system()}; {packages}; {parser}"


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
