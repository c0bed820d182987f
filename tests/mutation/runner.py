"""Runs the tests of a mutant in a copy of the tree, and finds out once which tests run which lines."""

import hashlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path, PurePath
from typing import Any, Literal

from .mutants import Mutant, uses_of_names

Verdict = Literal["killed", "timed out", "survived"]

_CHILD = Path(__file__).with_name("child.py")
_MAP = Path(".mutation")  # Inside the tree: what was traced, by the contents of what it was traced on.
_NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "dist", "data.db*")
# What one mutant may cost, in seconds of tests without it: first in the few files that its module matters most to, of
# which not all others need be imported, then elsewhere.
_NEAR_FILES = 3
_OWN_SECONDS = 60.0
_NEAR_SECONDS = 15.0
_FAR_SECONDS = 30.0
_BY_NAME_SECONDS = 300.0  # In files that are chosen by their names only.
# The test files of modules whose names no test file has.
_FILES_BY_HAND = {"alembic": ("tests/test_*migrat*.py", "tests/test_schema.py")}
_PATIENCE = 4  # How many times longer than without a mutant they may take, and what is added for the start.
_START = 30.0
_LAST_WORDS = 10.0  # Seconds to drop the databases of tests that were interrupted.
_TRACE_SECONDS = 1800.0


@dataclass(frozen=True)
class Result:
    """What became of a mutant, and the test that noticed it."""

    verdict: Verdict
    by: str | None = None


class Project:
    """A tree with packages to change and tests to run."""

    def __init__(self, root: Path, engines: Iterable[str] = ()) -> None:
        self.root = root
        self.engines = list(engines)
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        self.packages = [package["include"] for package in project["tool"]["poetry"]["packages"]]

    def modules(self) -> list[str]:
        """Return the modules as paths from the root."""
        found = (path for package in self.packages for path in (self.root / package).rglob("*.py"))
        return sorted(str(path.relative_to(self.root)) for path in found)

    def test_files(self) -> list[str]:
        """Return the test files; those of this folder test the tool."""
        found = (self.root / "tests").rglob("test_*.py")
        return sorted(str(path.relative_to(self.root)) for path in found if _is_collected(path, self.root))

    def digest(self, test_file: str) -> str:
        """Return what changes when the outcome of this test file may change."""
        others = [path for path in (self.root / "tests").rglob("*.py") if _is_shared(path)]
        parts = [*map(self.root.joinpath, self.modules()), *others, self.root / test_file]
        texts = [path.relative_to(self.root).as_posix().encode() + path.read_bytes() for path in sorted(parts)]
        return hashlib.sha256(b"\0".join([*texts, *map(str.encode, self.engines)])).hexdigest()


def _is_shared(path: Path) -> bool:
    return not path.name.startswith("test_") and path.parent.name != "mutation"


def _is_collected(path: Path, root: Path) -> bool:
    # A folder with a conftest.py of its own, below the first one, is a suite of its own.
    folders = path.relative_to(root / "tests").parents
    inner = [root / "tests" / folder for folder in folders if folder != Path()]
    return path.parent.name != "mutation" and not any((folder / "conftest.py").exists() for folder in inner)


class Copies:
    """Copies of a tree, one for each worker; what is mutated is a copy, never the tree."""

    def __init__(self, project: Project, folder: Path, number: int) -> None:
        self.project = project
        self._free: queue.Queue[Path] = queue.Queue()
        for name in range(number):
            copy = folder / f"copy{name}"
            shutil.copytree(project.root, copy, ignore=_NOT_COPIED)
            self._free.put(copy)

    @contextmanager
    def one(self) -> Iterator[Path]:
        """Lend a copy."""
        copy = self._free.get()
        try:
            yield copy
        finally:
            self._free.put(copy)

    def run(self, copy: Path, job: dict[str, Any], seconds: float) -> tuple[int | None, Any]:
        """Run a job; return the exit code, or None for a time-out, and the result."""
        order, result = copy.with_suffix(".job"), copy.with_suffix(".result")
        order.write_text(json.dumps({"engines": self.project.engines, **job}), encoding="utf-8")
        result.unlink(missing_ok=True)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE_", "PYTEST_"))
        }
        process = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD), str(order), str(result)],
            cwd=copy,
            env={**environment, "PYTHONPATH": str(copy), "HYPOTHESIS_STORAGE_DIRECTORY": str(copy / ".hypothesis")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LAST_WORDS)
        finally:
            _end_group(process)
        return code, json.loads(result.read_text(encoding="utf-8")) if result.exists() else None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Map:
    """Which tests run which line, and how long they take."""

    def __init__(self, project: Project, tests: dict[str, dict[str, Any]], imported: dict[str, set[int]]) -> None:
        self._uses: dict[str, set[tuple[str, int, bool]]] = {}
        for module in project.modules():
            for name, line, in_function in uses_of_names((project.root / module).read_text(encoding="utf-8")):
                self._uses.setdefault(name, set()).add((module, line, in_function))
        self.tests = {name: test for name, test in tests.items() if test["passed"] and not test["broken"]}
        self.broken = sorted(name for name, test in tests.items() if test["broken"])
        self._known = list(tests)
        self._imported = imported
        self._by_line: dict[tuple[str, int], set[str]] = {}
        self._by_module: dict[str, set[str]] = {}
        for name, test in self.tests.items():
            for file, lines in test["lines"].items():
                for line in lines:
                    self._by_line.setdefault((file, line), set()).add(name)
                if not imported.get(file, set()).issuperset(lines):
                    self._by_module.setdefault(file, set()).add(name)

    def tests_of(self, module: str, mutant: Mutant) -> list[list[str]]:
        """Return the tests that may notice a mutant: those near it, then the others, the fastest first."""
        names = set().union(*(self._by_line.get((module, line), set()) for line in mutant.lines))
        uses = self._uses.get(mutant.name or "", set())
        used_by = set().union(*(self._by_line.get((file, line), set()) for file, line, _ in uses))
        others: set[str] = set()
        if used_by and all(in_function for _, _, in_function in uses):
            names |= used_by
        elif mutant.at_import or self._imported.get(module, set()).intersection(mutant.lines):
            # What import makes may matter to any test, and most to those that use the module.
            names |= self._by_module.get(module, set())
            others = set(self.tests)
        # Where no test was seen to run a line, as in a process that ended at once, the names of the files have to do.
        if not names:
            files = self._files_by_name(module)
            near = self._fastest((name for name in self.tests if _file_of(name) in files), _BY_NAME_SECONDS)
            return [near, self._fastest(others.difference(near), _FAR_SECONDS)]
        near_files = self._nearest_files(module, names)
        near = self._fastest((name for name in names if _file_of(name) in near_files), _NEAR_SECONDS)
        # Then the rest of its own file, seen to run the line or not: it may start programs that run it.
        rest = {name for name in self.tests if _file_of(name) == self._mirror(module)}.difference(near)
        own = self._fastest(rest, _OWN_SECONDS)
        return [near, own, self._fastest((names | others).difference(near, own), _FAR_SECONDS)]

    def _nearest_files(self, module: str, names: set[str]) -> set[str]:
        """Return the files whose tests run most lines of the module among all that they run."""
        shares: dict[str, list[float]] = {}
        for name in names:
            lines = self.tests[name]["lines"]
            share = len(lines.get(module, ())) / max(1, sum(map(len, lines.values())))
            shares.setdefault(_file_of(name), []).append(share)
        return set(sorted(shares, key=lambda file: (-sum(shares[file]) / len(shares[file]), file))[:_NEAR_FILES])

    def _files_by_name(self, module: str) -> set[str]:
        """Return the files whose paths are most like the module's."""
        files = sorted(set(map(_file_of, self.tests)))
        if patterns := _FILES_BY_HAND.get(PurePath(module).parts[0]):
            return {file for file in files if any(map(PurePath(file).match, patterns))}
        wanted = self._mirror(module)
        likeness = {file: SequenceMatcher(None, file, wanted).ratio() for file in files}
        return set(sorted(files, key=lambda file: (-likeness[file], file))[:_NEAR_FILES])

    def _mirror(self, module: str) -> str:
        """Return the test file of the module's name, whether it exists or not."""
        package, *path = PurePath(module).with_suffix("").parts
        name = path.pop()
        if name == "__init__":  # Its tests have the name of its folder.
            name = path[-1] if path else package
        return "/".join(("tests", *path, f"test_{name}.py"))

    def _fastest(self, names: Iterable[str], limit: float) -> list[str]:
        chosen, seconds = [], 0.0
        for name in sorted(names, key=lambda name: (self.tests[name]["seconds"], name)):
            seconds += self.tests[name]["seconds"]
            if chosen and seconds > limit:
                break
            chosen.append(name)
        return chosen

    def job(self, tests: list[str]) -> dict[str, Any]:
        """Return the job that runs these tests."""
        files = sorted({_file_of(name) for name in tests})
        known = [name for name in self._known if name.startswith(tuple(files))]
        return {"files": files, "tests": tests, "known": known}

    def seconds(self, tests: list[str]) -> float:
        """Return how long these tests take without a mutant."""
        return float(sum(self.tests[name]["seconds"] for name in tests))


def _file_of(name: str) -> str:
    return name.partition("::")[0]


def trace(copies: Copies, jobs: int) -> Map:
    """Run every test file once, or take what an earlier run kept of it."""
    project = copies.project
    kept = project.root / _MAP
    kept.mkdir(exist_ok=True)
    memories = {file: kept / f"{project.digest(file)}.json" for file in project.test_files()}

    def one(file: str) -> dict[str, Any]:
        memory = memories[file]
        if not memory.exists():
            with copies.one() as copy:
                _, result = copies.run(copy, {"files": [file], "trace": project.packages}, _TRACE_SECONDS)
            if result is None:
                raise RuntimeError(f"{file} can not be run without a mutant")
            memory.write_text(json.dumps(result), encoding="utf-8")
        return dict(json.loads(memory.read_text(encoding="utf-8")))

    with ThreadPoolExecutor(jobs) as pool:
        traces = list(pool.map(one, memories))
    tests = {name: test for found in traces for name, test in found["tests"].items()}
    imported: dict[str, set[int]] = {}
    for found in traces:
        for file, lines in found["imported"].items():
            imported.setdefault(file, set()).update(lines)
    return Map(project, tests, imported)


def judge(copies: Copies, known: Map, module: str, mutant: Mutant) -> Result:
    """Run the tests that may notice a mutant."""
    with copies.one() as copy, _changed(copy / module, mutant.source):
        for tests in filter(None, known.tests_of(module, mutant)):
            code, result = copies.run(copy, known.job(tests), _START + _PATIENCE * known.seconds(tests))
            if code is None:
                return Result("timed out")
            if code not in (0, 5):  # 5: the mutant took the tests away.
                return Result("killed", (result or {}).get("failed"))
    return Result("survived")


@contextmanager
def _changed(path: Path, source: str) -> Iterator[None]:
    original = path.read_bytes()
    try:
        path.write_text(source, encoding="utf-8")
        _forget_compiled(path)
        yield
    finally:
        path.write_bytes(original)
        _forget_compiled(path)


def _forget_compiled(path: Path) -> None:
    # Python compares the size and the second of a source with those it compiled: a mutant may have both.
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


@contextmanager
def copies_of(project: Project, number: int) -> Iterator[Copies]:
    """Copy the tree, and remove the copies afterwards."""
    with tempfile.TemporaryDirectory(prefix="mutation-", ignore_cleanup_errors=True) as folder:
        yield Copies(project, Path(folder), number)
