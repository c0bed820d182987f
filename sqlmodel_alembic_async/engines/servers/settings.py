"""Prepare engines of PostgreSQL, MariaDB and MySQL."""

import logging
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import ConnectionPoolEntry

from ..begin_mode import begin_mode
from ..pools import IS_READER
from .cancellation import kill_abandoned_statements
from .connecting import DRIVERS, close_abandoned_connections
from .idle_check import replace_dead_connections

_IS_READ_ONLY = "sqlmodel_alembic_async_is_read_only"

_SET_READ_ONLY = {"postgresql": "SET default_transaction_read_only = on"}
_SET_READ_ONLY |= dict.fromkeys(("mysql", "mariadb"), "SET SESSION TRANSACTION READ ONLY")


def prepare(engine: Engine) -> None:
    """Prepare an engine before it connects: read-only reader connections, idle checks and cancellation."""
    dialect = engine.dialect

    def make_read_only(connection: Any, record: ConnectionPoolEntry) -> None:
        if not record.info.get(IS_READER):
            return
        # Saves the round trips of BEGIN and ROLLBACK.
        dialect.set_isolation_level(connection, "AUTOCOMMIT")
        # Only in autocommit: PostgreSQL's ROLLBACK would also undo the SET.
        if not record.info.get(_IS_READ_ONLY):
            _execute(connection, _SET_READ_ONLY[dialect.name])

    replace_dead_connections(engine)
    event.listen(engine, "connect", make_read_only)
    if dialect.driver == "asyncpg":
        event.listen(engine, "do_connect", _connect_read_only)
    if dialect.name != "postgresql":
        event.listen(engine, "begin", _begin)
        # It must run first: SQLAlchemy initializes the dialect in a "connect" listener, which ends with a ROLLBACK.
        event.listen(engine, "connect", _configure_session, insert=True)
    if dialect.driver in DRIVERS:
        close_abandoned_connections(engine)
    kill_abandoned_statements(engine)
    if dialect.driver == "asyncmy":
        # asyncmy logs the server's warnings, which quote values. The server also warns about each named primary key.
        logging.getLogger("asyncmy").setLevel(logging.ERROR)


def _connect_read_only(
    dialect: object, record: ConnectionPoolEntry | None, args: list[Any], options: dict[str, Any]
) -> None:
    """Send the setting at connect: behind PgBouncer, a SET would also affect other clients of the server connection."""
    if record is not None and record.info.get(IS_READER):
        settings = options.get("server_settings", {})
        options["server_settings"] = {**settings, "default_transaction_read_only": "on"}
        record.info[_IS_READ_ONLY] = True


def _begin(connection: Connection) -> None:
    if begin_mode(connection) == "READ ONLY":
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")


def _configure_session(connection: Any, record: object) -> None:
    """Override server defaults: chained transactions, and SHOW CREATE TABLE without the quotes SQLAlchemy needs."""
    _execute(connection, "SET SESSION completion_type = 'NO_CHAIN', sql_quote_show_create = 1")


def _execute(connection: Any, statement: str) -> None:
    cursor = connection.cursor()
    cursor.execute(statement)
    cursor.close()
