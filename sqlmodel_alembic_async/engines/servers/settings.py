"""What the engines of PostgreSQL, MariaDB and MySQL need."""

import logging
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import ConnectionPoolEntry

from ..begin_mode import begin_mode
from ..pools import READS_ONLY
from .cancellation import kill_abandoned_statements
from .connecting import DRIVERS, close_abandoned_connections
from .idle_check import replace_dead_connections

_TOLD = "sqlmodel_alembic_async_told"  # In the info of a connection that was made one that only reads.

_READ_ONLY = {"postgresql": "SET default_transaction_read_only = on"}
_READ_ONLY |= dict.fromkeys(("mysql", "mariadb"), "SET SESSION TRANSACTION READ ONLY")


def prepare(engine: Engine) -> None:
    """Give an engine, before it connects, lasting connections, and readers that can only read."""
    dialect = engine.dialect

    def make_reader(connection: Any, record: ConnectionPoolEntry) -> None:
        if not record.info.get(READS_ONLY):
            return
        if not record.info.get(_TOLD):
            _execute(connection, _READ_ONLY[dialect.name])
        # A single statement needs no BEGIN and no ROLLBACK, each of which is a round trip.
        dialect.set_isolation_level(connection, "AUTOCOMMIT")

    replace_dead_connections(engine)
    event.listen(engine, "connect", make_reader)
    if dialect.driver == "asyncpg":
        event.listen(engine, "do_connect", _connect_reader)
    if dialect.name != "postgresql":
        event.listen(engine, "begin", _begin)
        # Before SQLAlchemy gets to know the server, and rolls that back.
        event.listen(engine, "connect", _set_session, insert=True)
    if dialect.driver in DRIVERS:
        close_abandoned_connections(engine)
    kill_abandoned_statements(engine)
    if dialect.driver == "asyncmy":
        # It logs the server's warnings, which quote values, and grumble at every named primary key.
        logging.getLogger("asyncmy").setLevel(logging.ERROR)


def _connect_reader(
    dialect: object, record: ConnectionPoolEntry | None, args: list[Any], options: dict[str, Any]
) -> None:
    # A SET would stay with the connection where a proxy between here and the server lends it to others.
    if record is not None and record.info.get(READS_ONLY):
        settings = options.get("server_settings", {})
        options["server_settings"] = {**settings, "default_transaction_read_only": "on"}
        record.info[_TOLD] = True


def _begin(connection: Connection) -> None:
    # PostgreSQL's driver has options of its own.
    if begin_mode(connection) == "READ ONLY":
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")


def _set_session(connection: Any, record: object) -> None:
    # A server may be set up to begin another transaction, of the same kind, with each COMMIT and ROLLBACK, and to show
    # tables in a way that SQLAlchemy does not understand.
    _execute(connection, "SET SESSION completion_type = 'NO_CHAIN', sql_quote_show_create = 1")


def _execute(connection: Any, statement: str) -> None:
    cursor = connection.cursor()
    cursor.execute(statement)
    cursor.close()
