"""Change the package in small ways, and list the changes that no test notices.

`python -m tests.mutation [--module NAME ...] [--sample N] [--seed S] [--minutes M] [--engine sqlite]`. Each change is
made in a copy of the tree, and only the tests that run the changed lines are run. The first time, and for each test
file that has changed since, the tests run once without a change, to see which lines they run.
"""

import argparse
import os
import random
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .mutants import Mutant, mutants_of
from .runner import Map, Project, Result, copies_of, judge, trace

_ANY = "*"  # The `after` of an entry that means every mutant of its line.
_EQUIVALENT = Path(__file__).with_name("equivalent.toml")


def main(arguments: list[str] | None = None, root: Path = Path(__file__).parents[2]) -> int:
    """Run the command; the exit code is 1 if a mutant survived."""
    asked = _parser().parse_args(arguments)
    project = Project(root, asked.engine or ())
    mutants = list(_chosen(project, asked))
    if not mutants:
        print("no mutants", flush=True)  # noqa: T201  # it is a command
        return 2
    random.Random(asked.seed).shuffle(mutants)
    mutants = sorted(mutants[: asked.sample], key=lambda chosen: _order(*chosen)) if asked.sample else mutants
    with copies_of(project, asked.jobs) as copies:
        known = trace(copies, asked.jobs)
        for name in known.broken:
            print(f"left out, for it fails without a mutant: {name}", flush=True)  # noqa: T201
        end = time.monotonic() + asked.minutes * 60

        def one(chosen: tuple[str, Mutant]) -> Result | None:
            if time.monotonic() > end:
                return None
            result = judge(copies, known, *chosen)
            if asked.verbose or result.verdict == "survived":
                print(_told(*chosen, result, known), flush=True)  # noqa: T201
            return result

        with ThreadPoolExecutor(asked.jobs) as pool:
            results = list(pool.map(one, mutants))
    return _report(mutants, results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--module", action="append", help="the end of a module's path or dotted name; all by default")
    parser.add_argument("--match", help="only mutants whose line has this text, before or after")
    parser.add_argument("--sample", type=int, help="how many mutants; all by default, as far as the time allows")
    parser.add_argument("--seed", type=int, default=0, help="chooses the sample and the order")
    parser.add_argument("--minutes", type=float, default=60, help="about how long, less the first look; 60 by default")
    parser.add_argument("--engine", action="append", help="only tests of this database, and of none; all by default")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="how many at a time")
    parser.add_argument("--equivalent", type=Path, default=_EQUIVALENT, help="the list of mutants that change nothing")
    parser.add_argument("--verbose", action="store_true", help="tell of each mutant what became of it")
    return parser


def _chosen(project: Project, asked: argparse.Namespace) -> Iterator[tuple[str, Mutant]]:
    entries = tomllib.loads(asked.equivalent.read_text(encoding="utf-8")).get("mutant", [])
    equivalent = {(entry["inside"], entry["before"], entry["after"]) for entry in entries}
    met = set()
    for module in project.modules():
        for mutant in mutants_of((project.root / module).read_text(encoding="utf-8")):
            any_after = (mutant.inside, mutant.before, _ANY)
            if known := {mutant.key, any_after} & equivalent:
                met |= known
            elif _is_asked(module, mutant, asked):
                yield module, mutant
    for inside, before, after in sorted(equivalent - met):
        print(f"no mutant is like this entry of {asked.equivalent.name}: {inside}: {before}  ->  {after}")  # noqa: T201


def _is_asked(module: str, mutant: Mutant, asked: argparse.Namespace) -> bool:
    path = f"/{module.removesuffix('.py').removesuffix('/__init__')}"
    endings = tuple(f"/{name.removesuffix('.py').replace('.', '/')}" for name in asked.module or ())
    if endings and not path.endswith(endings):
        return False
    return asked.match is None or asked.match in mutant.before or asked.match in mutant.after


def _order(module: str, mutant: Mutant) -> tuple[str, int, str]:
    return module, mutant.line, mutant.after


def _told(module: str, mutant: Mutant, result: Result, known: Map) -> str:
    noticed = f" by {result.by}" if result.by else ""
    if result.verdict == "survived":
        noticed = f" {sum(map(len, known.tests_of(module, mutant)))} tests"
    return f"{result.verdict}{noticed}: {module}:{mutant.line}  {mutant.before}  ->  {mutant.after}"


def _report(mutants: list[tuple[str, Mutant]], results: list[Result | None]) -> int:
    counts: dict[str, Counter[str]] = {}
    survivors = []
    for (module, mutant), result in zip(mutants, results, strict=True):
        if result is not None:
            counts.setdefault(module, Counter())[result.verdict] += 1
            if result.verdict == "survived":
                survivors.append((module, mutant))
    lines = ["", f"{'module':50} {'mutants':>8} {'killed':>8} {'timed out':>10} {'survived':>9} {'score':>7}"]
    lines += [_line(module, counts[module]) for module in sorted(counts)]
    lines.append(_line("all", sum(counts.values(), Counter())))
    if missing := results.count(None):
        lines.append(f"{missing} more mutants were not run: the time was over")
    lines += ["", *(f"{module}:{mutant.line}  {mutant.before}  ->  {mutant.after}" for module, mutant in survivors)]
    print("\n".join(lines), flush=True)  # noqa: T201
    return 1 if survivors else 0


def _line(name: str, found: Counter[str]) -> str:
    numbers = f"{found['killed']:8} {found['timed out']:10} {found['survived']:9}"
    return f"{name:50} {found.total():8} {numbers} {1 - found['survived'] / max(1, found.total()):7.1%}"


if __name__ == "__main__":
    sys.exit(main())
