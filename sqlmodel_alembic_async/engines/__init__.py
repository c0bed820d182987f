"""Ready async engines: what each database needs before a session may use it."""

from importlib.util import find_spec
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from . import servers, sqlite
from .begin_mode import BEGIN
from .commit_guard import refuse_partial_commits
from .pools import FilePool, LanePool, lane
from .task_guard import refuse_second_tasks

__all__ = ["BEGIN", "async_url", "create_engine", "prepare", "reader", "snapshot", "writer"]

_ASYNC_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "mysql": "mysql+asyncmy",
    "mariadb": "mariadb+asyncmy",
}
_EXTRAS = {"asyncpg": "postgresql", "asyncmy": "mysql"}


def async_url(url: str | URL) -> URL:
    """Return the URL with its async driver; raise ValueError, which does not quote it, for what is no URL."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError("not a database URL: it should read like driver://user:password@host/name") from None
    parsed = parsed.set(drivername=_ASYNC_DRIVERS.get(parsed.drivername, parsed.drivername))
    if parsed.drivername == "postgresql+asyncpg" and (mode := parsed.query.get("sslmode")):
        # Platforms write libpq's name of the option.
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return parsed


def create_engine(url: str | URL, **options: Any) -> AsyncEngine:
    """Build a ready engine; `options` are create_async_engine's and prepare()'s, and win over the defaults here."""
    url = async_url(url)
    driver = url.drivername.partition("+")[2]
    if driver in _EXTRAS and find_spec(driver) is None:
        raise ModuleNotFoundError(
            f"{driver} is not installed: pip install 'sqlmodel-alembic-async[{_EXTRAS[driver]}]'", name=driver
        )
    if driver == "aiosqlite":
        url = sqlite.shared_memory(url)
    preparations = {name: options.pop(name) for name in ("synchronous",) if name in options}
    # Parameters are people's data: they stay out of logs and errors.
    defaults = {
        "hide_parameters": True,
        "poolclass": FilePool if driver == "aiosqlite" else LanePool,
        "skip_autocommit_rollback": driver != "aiosqlite",
    }
    return prepare(create_async_engine(url, **(defaults | options)), **preparations)


def prepare(engine: AsyncEngine, **settings: Any) -> AsyncEngine:
    """Make a host application's own engine, not yet connected, as ready as create_engine() makes one, and return it.

    SQLite takes a setting: `synchronous`, which is "NORMAL", "FULL" or "EXTRA".
    """
    if engine.dialect.driver == "aiosqlite":
        sqlite.prepare(engine.sync_engine, **settings)
    elif settings:
        raise TypeError(f"{engine.dialect.name} has no setting {', '.join(settings)}")
    else:
        servers.prepare(engine.sync_engine)
    refuse_second_tasks(engine.sync_engine)
    refuse_partial_commits(engine.sync_engine)
    return engine


def writer(engine: AsyncEngine) -> AsyncEngine:
    """Return the engine for transactions that write: on SQLite they queue for one connection, and begin by locking."""
    if engine.dialect.name == "sqlite":
        return lane(engine, "writer", **{BEGIN: "IMMEDIATE"})
    return engine


def reader(engine: AsyncEngine) -> AsyncEngine:
    """Return the engine for statements that only read, each by itself: without BEGIN and ROLLBACK."""
    if not isinstance(engine.pool, LanePool):
        return snapshot(engine)
    return lane(engine, "reader", **{BEGIN: "AUTOCOMMIT"})


def snapshot(engine: AsyncEngine) -> AsyncEngine:
    """Return the engine for transactions that only read, and see the database as it was when they began."""
    if engine.dialect.name == "sqlite":
        return lane(engine, "reader", **{BEGIN: "READ ONLY"})
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return engine.execution_options(**(options if engine.dialect.name == "postgresql" else {BEGIN: "READ ONLY"}))
