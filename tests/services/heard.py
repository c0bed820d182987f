"""Listeners to the events of the unit of work, which note what they hear."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import event

from sqlmodel_alembic_async import Pet, User

MAPPER_EVENTS = [f"{moment}_{kind}" for kind in ("insert", "update", "delete") for moment in ("before", "after")]


@contextmanager
def heard(*names: str) -> Iterator[list[tuple[str, str, int]]]:
    """Listen to these events of users and pets; yield what is heard: the event, the class, and the id of the row."""
    found: list[tuple[str, str, int]] = []
    listeners = []
    for model in (User, Pet):
        for name in names or MAPPER_EVENTS:

            def note(mapper: object, connection: object, row: User | Pet, name: str = name) -> None:
                found.append((name, type(row).__name__, row.id or 0))

            event.listen(model, name, note)
            listeners.append((model, name, note))
    try:
        yield found
    finally:
        for listener in listeners:
            event.remove(*listener)
