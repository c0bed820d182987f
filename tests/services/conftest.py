"""Some tests run twice: with services that write by statements, and with an application that listens to events."""

from collections.abc import Iterator

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from sqlmodel_alembic_async import Pet, User

from .heard import MAPPER_EVENTS

_RUN_TWICE = {
    "test_users",
    "test_pets",
    "test_merges",
    "test_erasure",
    "test_snapshots",
    "test_promises",
    "test_upserts",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # Statements are counted where nobody listens.
    if metafunc.module.__name__.rpartition(".")[2] in _RUN_TWICE and "statements" not in metafunc.fixturenames:
        metafunc.parametrize("is_heard", [False, True], ids=["unheard", "heard"], indirect=True)


@pytest.fixture(autouse=True)
def is_heard(request: pytest.FixtureRequest) -> Iterator[None]:
    def listen(*arguments: object) -> None:
        pass

    if not getattr(request, "param", False):
        yield
        return
    targets = [(model, name) for model in (User, Pet) for name in MAPPER_EVENTS]
    for target in (*targets, (Session, "after_flush")):
        event.listen(*target, listen)
    yield
    for target in (*targets, (Session, "after_flush")):
        event.remove(*target, listen)
