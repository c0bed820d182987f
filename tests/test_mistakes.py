"""The mistakes that docs/errors.md lists, and the errors that they raise."""

import asyncio
import builtins
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pydantic
import pytest
import sqlalchemy.exc
from sqlalchemy import text

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    PetManagementError,
    User,
    UserCreate,
    create_user,
    delete_user,
    engines,
    get_user,
    import_pets,
    list_users,
    merge_users,
    migrations,
    upsert_user,
)

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
TABLE = PAGE.read_text(encoding="utf-8").partition("| Mistake | Error |")[2].partition("\n\n")[0]
ROWS = re.findall(r"^\| (.+) \| `(\w+)` \|$", TABLE, re.MULTILINE)


class Customer(UserCreate):
    discount: int = 0


async def nested_transaction(db: Database, session: AsyncSession) -> None:
    async with db.transaction():
        await nested_transaction(db, session)


async def two_tasks(db: Database, session: AsyncSession) -> None:
    await asyncio.gather(*(session.exec(text("SELECT 1")) for _ in range(2)))


async def pets_not_loaded(db: Database, session: AsyncSession) -> None:
    list((await create_user(session, UserCreate(name="Ada"))).pets)


async def expired_row(db: Database, session: AsyncSession) -> None:
    user = await create_user(session, UserCreate(name="Ada"))
    session.expire(user)
    assert user.name


async def refused_commit(db: Database, session: AsyncSession) -> None:
    async with db.session() as plain:
        plain.add_all([User(name="Ada", email="ada@example.com"), User(name="Eve", email="ada@example.com")])
        await plain.commit()


async def missing_value(db: Database, session: AsyncSession) -> None:
    async with db.transaction() as own:
        await own.exec(text("SELECT :x"))


async def missing_driver(db: Database, session: AsyncSession) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "find_spec", lambda name: None)
        assert Database("postgresql://host/name").engine


async def bad_url(db: Database, session: AsyncSession) -> None:
    assert Database("nonsense").url


async def driver_that_is_not_async(db: Database, session: AsyncSession) -> None:
    assert Database("sqlite+pysqlite:///pets.db").engine


async def unknown_field(db: Database, session: AsyncSession) -> None:
    User(nmae="Ada")


MISTAKES: dict[str, Callable[[Database, Any], Awaitable[object]]] = {
    "an unknown filter": lambda db, session: list_users(session, nmae="Ada"),
    "an id that is not an int": lambda db, session: get_user(session, "1"),
    "a dictionary in the place of a shape": lambda db, session: create_user(session, {"name": "Ada"}),
    "a subclass of a shape, with more fields": lambda db, session: create_user(session, Customer(name="Ada")),
    "an unknown field of `User(...)`": unknown_field,
    "an invalid value in a shape, a filter or a row": lambda db, session: list_users(session, archived="maybe"),
    "a text that is no database URL": bad_url,
    "a database URL with a driver that is unknown or not async": driver_that_is_not_async,
    "an unknown `order_by`": lambda db, session: list_users(session, order_by="city"),
    "a `limit` outside 1…1000": lambda db, session: list_users(session, limit=1001),
    "`after` together with `offset`": lambda db, session: list_users(session, after="x", offset=1),
    "an unknown value of `pets` or `on_similar`": lambda db, session: delete_user(session, 1, pets="drop"),
    "an unknown value of `by`": lambda db, session: upsert_user(session, UserCreate(name="Ada"), by="name"),
    "merging a row with itself": lambda db, session: merge_users(session, 1, 1),
    "an upsert of a row without its key": lambda db, session: upsert_user(session, UserCreate(name="Ada")),
    "an unknown revision": lambda db, session: migrations.upgrade("nonsense", database=db),
    "a `transaction()` inside a `transaction()`": nested_transaction,
    "a driver that is not installed; the message names the extra": missing_driver,
    "a file that `import_pets` or `export_pets` cannot open": lambda db, session: import_pets(session, "/nonsense.csv"),
    "two tasks that use one session without a service": two_tasks,
    "reading `user.pets` before it is loaded; the message tells what loads it": pets_not_loaded,
    "reading an expired row, as after `session.rollback()`; the message tells what reads it again": expired_row,
    "a statement of your own in `transaction()`, without a value for one of its parameters": missing_value,
    "a commit of a plain `session()` that the database refuses": refused_commit,
}


def test_the_table_lists_every_mistake_of_this_test() -> None:
    assert [mistake for mistake, _ in ROWS] == list(MISTAKES)


@pytest.mark.parametrize(("mistake", "name"), ROWS)
async def test_a_mistake_raises_the_error_that_the_table_names(migrated_url: Any, mistake: str, name: str) -> None:
    places = (builtins, pydantic, sqlalchemy.exc)
    expected = cast(type[Exception], next(getattr(place, name) for place in places if hasattr(place, name)))

    with pytest.raises(expected) as caught:
        async with Database(migrated_url) as db, db.session() as session:
            await MISTAKES[mistake](db, session)

    assert not isinstance(caught.value, PetManagementError)
