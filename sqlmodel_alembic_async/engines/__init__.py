"""Build async engines and prepare them for each database: settings, connection pools and safety checks."""

from importlib.util import find_spec
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from . import servers, sqlite
from .begin_mode import BEGIN
from .commit_guard import refuse_partial_commits
from .echo import Echo, follow_echo, get_echo, set_echo
from .pools import FewReadersPool, ReadWritePool, SQLitePool, use_subpool, with_options
from .task_guard import refuse_concurrent_tasks

__all__ = [
    "BEGIN",
    "Echo",
    "async_url",
    "create_engine",
    "get_echo",
    "prepare",
    "reader",
    "set_echo",
    "snapshot",
    "writer",
]

_ASYNC_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "mysql": "mysql+asyncmy",
    "mariadb": "mariadb+asyncmy",
}
_SIZES = {"pool_size", "max_overflow"}
_EXTRAS = {"asyncpg": "postgresql", "asyncmy": "mysql"}


def async_url(url: str | URL) -> URL:
    """Return the URL with its async driver.

    `postgres`, `postgresql`, `mysql`, `mariadb` and `sqlite` get the driver that this package supports. A URL that
    names a driver keeps it.

    Raises:
        ValueError: The text is not a database URL. The message does not quote it, because it may hold a password.

    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError("not a database URL: expected driver://user:password@host/name") from None
    parsed = parsed.set(drivername=_ASYNC_DRIVERS.get(parsed.drivername, parsed.drivername))
    if parsed.drivername == "postgresql+asyncpg" and (mode := parsed.query.get("sslmode")):
        # asyncpg does not know libpq's name of the option, which hosting platforms use.
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return parsed


def create_engine(url: str | URL, **options: Any) -> AsyncEngine:
    """Build an async engine and prepare it for its database.

    Args:
        url: The database URL, with or without its async driver.
        options: Options of SQLAlchemy's create_async_engine() and of prepare(). They override this function's defaults.
            `echo` may also be "values": to log the statements' values, too.

    Raises:
        ModuleNotFoundError: The database's driver is not installed.
        TypeError: An option is unknown, does not apply to this database, or is a custom creator on SQLite.
        ValueError: The URL is not a database URL, names a driver that is unknown or not async, or `echo` or a setting
            of prepare() has a value that is not allowed.

    """
    url = async_url(url)
    _refuse_other_drivers(url)
    driver = url.drivername.partition("+")[2]
    if driver in _EXTRAS and find_spec(driver) is None:
        raise ModuleNotFoundError(
            f"{driver} is not installed: pip install 'sqlmodel-alembic-async[{_EXTRAS[driver]}]'", name=driver
        )
    if driver == "aiosqlite":
        url = sqlite.shared_memory(url)
    echo: Echo = options.pop("echo", False)
    preparations = {name: options.pop(name) for name in ("synchronous", "lock_timeout") if name in options}
    # Parameters contain personal data, which must not appear in logs and error messages.
    defaults = {"hide_parameters": True, "skip_autocommit_rollback": driver != "aiosqlite"}
    if "poolclass" not in options:
        defaults |= _pool_options(driver, is_sized=not _SIZES.isdisjoint(options))
    engine = prepare(create_async_engine(url, **(defaults | options)), **preparations)
    set_echo(engine.sync_engine, echo)
    return engine


def _pool_options(driver: str, *, is_sized: bool) -> dict[str, Any]:
    if driver != "aiosqlite":
        return {"poolclass": ReadWritePool}
    return {"poolclass": SQLitePool if is_sized else FewReadersPool, "pool_timeout": sqlite.LOCK_TIMEOUT}


def _refuse_other_drivers(url: URL) -> None:
    advice = f"use {_ASYNC_DRIVERS.get(url.get_backend_name(), ', '.join(_ASYNC_DRIVERS))}"
    try:
        is_async = url.get_dialect(_is_async=True).is_async
    except NoSuchModuleError:
        raise ValueError(f"unknown database or driver {url.drivername}: {advice}") from None
    if not is_async:
        raise ValueError(f"{url.drivername} is not an async driver: {advice}")


def prepare(engine: AsyncEngine, **settings: Any) -> AsyncEngine:
    """Prepare an engine that the application built itself, and return it.

    Call it once, before the engine opens its first connection.

    Args:
        engine: An async engine. On SQLite, it must be built without `creator` and `async_creator`.
        settings: SQLite only: `synchronous`, which is "NORMAL", "FULL" (default) or "EXTRA"; and `lock_timeout`, the
            seconds that a writer waits for other writers (default 60).

    Raises:
        TypeError: A setting does not apply to this database or has the wrong type, or a SQLite engine has a custom
            creator.
        ValueError: A setting has a value that is not allowed.

    """
    if engine.dialect.driver == "aiosqlite":
        sqlite.prepare(engine.sync_engine, **settings)
    elif settings:
        raise TypeError(f"{engine.dialect.name} has no setting {', '.join(settings)}")
    else:
        servers.prepare(engine.sync_engine)
    refuse_concurrent_tasks(engine.sync_engine)
    refuse_partial_commits(engine.sync_engine)
    follow_echo(engine.sync_engine)
    return engine


def writer(engine: AsyncEngine) -> AsyncEngine:
    """Return an engine for transactions that write.

    On SQLite, writers wait in a FIFO queue for a single connection, and each transaction begins with BEGIN IMMEDIATE,
    which takes the write lock at once.
    """
    if engine.dialect.name == "sqlite":
        return use_subpool(engine, "writer", **{BEGIN: "IMMEDIATE"})
    return engine


def reader(engine: AsyncEngine) -> AsyncEngine:
    """Return an engine for read-only statements in autocommit mode: it sends no BEGIN and no ROLLBACK.

    An engine with another pool than create_engine()'s default gets read-only transactions instead, as snapshot() does.
    """
    if not isinstance(engine.pool, ReadWritePool):
        return snapshot(engine)
    return use_subpool(engine, "reader", **{BEGIN: "AUTOCOMMIT"})


def snapshot(engine: AsyncEngine) -> AsyncEngine:
    """Return an engine for read-only transactions in which all statements see the same snapshot of the database."""
    if engine.dialect.name == "sqlite":
        return use_subpool(engine, "reader", **{BEGIN: "READ ONLY"})
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return with_options(engine, **(options if engine.dialect.name == "postgresql" else {BEGIN: "READ ONLY"}))
