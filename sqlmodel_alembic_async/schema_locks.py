"""Let one process at a time change the schema, and limit how long a change waits for other transactions."""

import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from .errors import TransactionConflictError
from .schema import create, require_database

LOCK_TIMEOUT = 3600
SQLITE_LOCK_TIMEOUT = 60

TABLE_LOCK_TIMEOUT = 10  # Short: meanwhile, all new statements on the table wait.

# Never change them: other versions of this package take the same locks.
_LOCK_ID = 0x5A17E7
_LOCK_NAME = "sqlmodel_alembic_async_version"


@contextmanager
def alone(connection: sa.Connection) -> Iterator[None]:
    """Hold a lock so that only one process at a time changes the schema; commit at the end, or roll back on an error.

    The block runs in a transaction. On MariaDB and MySQL, each DDL statement commits nevertheless. PostgreSQL waits for
    the lock without a timeout. Inside the block, a statement on a server fails after TABLE_LOCK_TIMEOUT seconds if
    another transaction uses its table. The block may change the isolation level of the connection.

    Raises:
        DatabaseError: The database URL names no database.
        TransactionConflictError: On MariaDB and MySQL, another process held the lock for LOCK_TIMEOUT seconds.
        sqlalchemy.exc.OperationalError: On SQLite, other connections held the write lock for SQLITE_LOCK_TIMEOUT
            seconds.

    """
    guard = {"sqlite": _sqlite, "postgresql": _postgresql}.get(connection.dialect.name, _mysql)
    with guard(connection):
        yield


def create_alone(connection: sa.Connection, tables: Collection[sa.Table]) -> None:
    """Create the missing tables and indexes while no other process changes the schema; see alone() for the errors."""
    with alone(connection):
        create(connection, tables)


@contextmanager
def _sqlite(connection: sa.Connection) -> Iterator[None]:
    if getattr(connection.connection, "isolation_level", "") is None:
        connection.execution_options(isolation_level="SERIALIZABLE")  # In AUTOCOMMIT there would be no transaction.
    with _begin_sqlite(connection):
        yield


def _begin_sqlite(connection: sa.Connection) -> sa.Transaction:
    deadline = time.monotonic() + SQLITE_LOCK_TIMEOUT
    while True:
        transaction = connection.begin()
        try:
            connection.exec_driver_sql("SELECT 1")  # With BEGIN IMMEDIATE, the first statement takes the write lock.
            return transaction
        except sa.exc.OperationalError as error:
            transaction.rollback()
            is_busy = getattr(error.driver_exception, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > deadline:
                raise


@contextmanager
def _postgresql(connection: sa.Connection) -> Iterator[None]:
    # A stricter level takes its snapshot before the wait for the lock, and would not see tables created meanwhile.
    connection.execution_options(isolation_level="READ COMMITTED")
    with connection.begin():
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_ID)))
        connection.execute(sa.select(sa.func.set_config("lock_timeout", f"{TABLE_LOCK_TIMEOUT}s", True)))
        yield


@contextmanager
def _mysql(connection: sa.Connection) -> Iterator[None]:
    # The server's session holds the lock, not the transaction: each DDL statement commits.
    require_database(connection)
    name = sa.func.concat(sa.func.left(sa.func.sha1(sa.func.database()), 16), ":", _LOCK_NAME)
    lock = sa.select(sa.func.get_lock(name, LOCK_TIMEOUT), sa.literal_column("@@SESSION.lock_wait_timeout"))
    is_locked, previous_timeout = connection.execute(lock).one()
    if not is_locked:
        raise TransactionConflictError("another process is changing the tables of this database: try again later")
    try:
        connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {TABLE_LOCK_TIMEOUT}")
        yield
        connection.commit()
    finally:
        if not connection.invalidated:  # The server releases the locks of a lost connection.
            connection.rollback()
            connection.exec_driver_sql("UNLOCK TABLES")
            connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {previous_timeout}")
            connection.execute(sa.select(sa.func.release_lock(name)))
            connection.commit()
