"""Ready async engines: what each database needs before a session may use it."""

import logging
from importlib.util import find_spec
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from . import sqlite
from .begin import BEGIN, begin_read_only
from .commits import refuse_partial_commits
from .pools import LoopPool

__all__ = ["BEGIN", "async_url", "create_engine", "refuse_partial_commits"]

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
    """Build a ready engine; `options` are create_async_engine's own and win over the defaults here."""
    url = async_url(url)
    driver = url.drivername.partition("+")[2]
    if driver in _EXTRAS and find_spec(driver) is None:
        raise ModuleNotFoundError(
            f"{driver} is not installed: pip install 'sqlmodel-alembic-async[{_EXTRAS[driver]}]'", name=driver
        )
    # Parameters are people's data: they stay out of logs and errors.
    options = {"hide_parameters": True, "poolclass": LoopPool} | options
    if driver == "aiosqlite":
        return sqlite.create_engine(url, **options)
    engine = create_async_engine(url, **({"pool_pre_ping": True} | options))
    if driver == "asyncmy":
        # The driver logs the server's warnings, which quote values, and grumble at every named primary key.
        logging.getLogger("asyncmy").setLevel(logging.ERROR)
        event.listen(engine.sync_engine, "begin", begin_read_only)
    return engine
