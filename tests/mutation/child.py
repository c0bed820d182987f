"""One run of pytest in a copy of the tree, in a process of its own: `python child.py JOB RESULT`, two files of JSON.

A job with "trace" runs whole test files and returns the lines that each test runs. Any other runs the tests that it
names, fastest first, up to the first one that fails, whose node id is the result.
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import pytest

_MEMORY = 8 * 2**30  # A mutant may collect without end.
_UNKNOWN = "unknown"  # The test that started a program without pytest's variables.
_ENGINE = "engine_name"  # The parameter by which the suite chooses a database.


class _Chosen:
    """Keeps the tests that the job names, in its order, and those that the unchanged suite does not have."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.place = {name: place for place, name in enumerate(job.get("tests", []))}
        self.known = set(job.get("known", []))
        self.engines = job["engines"]
        self.failed: str | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self._is_chosen(item)]
        items.sort(key=lambda item: self.place.get(item.nodeid, len(self.place)))

    def _is_chosen(self, item: pytest.Item) -> bool:
        callspec = getattr(item, "callspec", None)
        engine = callspec.params.get(_ENGINE) if callspec else None
        if engine is not None and self.engines and engine not in self.engines:
            return False
        return item.nodeid in self.place or item.nodeid not in self.known

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.failed is None:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self.failed is None:
            self.failed = report.nodeid


class _Traced:
    """Tells coverage which test runs, and notes how long it takes and whether it passes."""

    def __init__(self, coverage: Any) -> None:
        self.coverage = coverage
        self.tests: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self.coverage.switch_context(item.nodeid)
        result = yield
        self.coverage.switch_context("")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = self.tests.setdefault(report.nodeid, {"passed": False, "broken": False, "seconds": 0.0, "lines": {}})
        test["seconds"] += report.duration
        test["passed"] |= report.when == "call" and report.passed
        test["broken"] |= report.failed


def main() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    options = ["-q", "-p", "no:cacheprovider", *job["files"]]
    if "trace" in job:
        result: object = _trace(job, options)
        code = 0
    else:
        chosen = _Chosen(job)
        code = int(pytest.main(["-x", *options], plugins=[chosen]))
        result = {"failed": chosen.failed}
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
    return code


def _trace(job: dict[str, Any], options: list[str]) -> dict[str, Any]:
    import coverage

    here = Path.cwd()
    settings = here / "mutation.coveragerc"
    # The whole paths: a program that a test starts may run in another folder.
    sources = "\n    ".join(str(here / package) for package in job["trace"])
    settings.write_text(
        f"[run]\nsource_dirs =\n    {sources}\nconcurrency = thread, greenlet\nparallel = true\n"
        "patch = fork, _exit\n"  # What a process does that was forked is part of the test, too.
        f"data_file = {here / '.coverage-mutation'}\ncontext = ${{PYTEST_CURRENT_TEST-{_UNKNOWN}}}\n"
        "disable_warnings = no-data-collected, module-not-measured, couldnt-parse\n",
        encoding="utf-8",
    )
    tracer = coverage.Coverage(config_file=str(settings))
    tracer.set_option("run:context", "")
    os.environ["COVERAGE_PROCESS_START"] = str(settings)  # Programs that a test starts are part of it.
    traced = _Traced(tracer)
    tracer.start()
    pytest.main(options, plugins=[_Chosen(job), traced])
    tracer.stop()
    tracer.save()
    tracer.combine()
    imported: dict[str, list[int]] = {}
    data = tracer.get_data()
    for path in data.measured_files():
        file = str(Path(path).relative_to(here))
        for line, contexts in data.contexts_by_lineno(path).items():
            # A program that a test started has pytest's name for where it was: "the test (call)".
            for name in {context if context in traced.tests else context.rpartition(" (")[0] for context in contexts}:
                if name in traced.tests:
                    traced.tests[name]["lines"].setdefault(file, []).append(line)
            if "" in contexts:
                imported.setdefault(file, []).append(line)
    return {"tests": traced.tests, "imported": imported}


if __name__ == "__main__":
    sys.exit(main())
