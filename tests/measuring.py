"""Switches coverage off: it nearly doubles the time of a test, and of a program that the test starts."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import _lru_cache_wrapper
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
    "test_examples.py",
    "test_host_migrations.py",
    "test_state_machine.py",
    "test_typed_examples.py",
    "test_web_applications.py",
)

# These run lines on a server that no test runs on SQLite.
_MEASURED_ON_SERVERS = (
    "engines/",
    "services/csv_files/",
    "services/statements/",
    "services/test_concurrent_merges.py",
    "services/test_merges.py",
    "services/test_upserts.py",
    "services/test_users.py",
    "test_cancelled_migrations.py",
    "test_driver_errors.py",
    "test_lost_connections.py",
    "test_migration_conflicts.py",
    "test_migration_plan.py",
    "test_migrations.py",
    "test_prompt_changes.py",
    "test_prompt_session.py",
    "test_retries.py",
    "test_schema.py",
    "test_schema_locks.py",
    "test_sessions.py",
    "test_start_errors.py",
)

_FOLDER = Path(__file__).parent
_OF_PROGRAMS = "COVERAGE_PROCESS_CONFIG"


@contextmanager
def measured(item: pytest.Item) -> Iterator[None]:
    """Run a test with coverage on or off."""
    if _is_measured(item):
        yield
        return
    with paused():
        yield
    _clear_caches()


def _clear_caches() -> None:
    """Let a later test, which is measured, run the functions again whose results this one has cached."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "sqlmodel_alembic_async"]:
        for value in list(vars(sys.modules[name]).values()):
            if isinstance(value, _lru_cache_wrapper):
                value.cache_clear()


def _is_measured(item: pytest.Item) -> bool:
    """Return whether coverage measures a test."""
    path = item.path.relative_to(_FOLDER).as_posix()
    engine = item.callspec.params.get("engine_name") if hasattr(item, "callspec") else None
    return not path.startswith(_NOT_MEASURED) and (engine in (None, "sqlite") or path.startswith(_MEASURED_ON_SERVERS))


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
