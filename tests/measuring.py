"""Switches coverage off: it nearly doubles the time of a test, and of a program that the test starts."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
from coverage import Coverage

# These take long, and other tests run the same lines.
_NOT_MEASURED = (
    "engines/servers/test_cancellation.py",
    "engines/test_dialect.py",
    "fastapi/test_bad_requests.py",
    "fastapi/test_schemathesis.py",
    "fastapi/test_under_uvicorn.py",
    "mutation/",
    "services/test_promises.py",
    "services/test_synchronisations.py",
    "test_cancelled_migrations.py",
    "test_concurrency.py",
    "test_examples.py",
    "test_host_migrations.py",
    "test_migrations.py",
    "test_state_machine.py",
    "test_storage_faults.py",
    "test_typed_examples.py",
    "test_undo.py",
    "test_web_applications.py",
)

_FOLDER = Path(__file__).parent
_OF_PROGRAMS = "COVERAGE_PROCESS_CONFIG"


def measured(item: pytest.Item) -> AbstractContextManager[None]:
    """Return the context of a test, in which coverage is on or off."""
    is_measured = not item.path.relative_to(_FOLDER).as_posix().startswith(_NOT_MEASURED)
    return nullcontext() if is_measured else paused()


@contextmanager
def paused() -> Iterator[None]:
    """Switch coverage off in this process, and in the programs that it starts.

    In a process that forks, coverage would inspect the whole stack, which takes half a minute in a test.
    """
    stopped = list(_stop())
    of_programs = {_OF_PROGRAMS: os.environ.pop(_OF_PROGRAMS)} if _OF_PROGRAMS in os.environ else {}
    try:
        yield
    finally:
        os.environ.update(of_programs)
        for coverage in reversed(stopped):
            coverage.start()


def _stop() -> Iterator[Coverage]:
    while (coverage := Coverage.current()) is not None:  # In a process of pytest-xdist, pytest-cov starts two.
        coverage.stop()
        yield coverage
