"""Create and drop tables, one process at a time; complete a creation or a removal that was interrupted."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial

import sqlalchemy as sa

from .errors import DatabaseError, TransactionConflictError

LOCK_TIMEOUT = 3600  # Seconds that a process waits for another one's changes, on MariaDB and MySQL.

# These must not change: other versions of this package take the same locks. PostgreSQL's advisory locks are numbers.
_LOCK_ID = 0x5A17E7
_LOCK_NAME = "sqlmodel_alembic_async_version"


@contextmanager
def alone(connection: sa.Connection) -> Iterator[None]:
    """Hold a lock so that only one process at a time changes the schema; commit at the end, or roll back on an error.

    The block runs in a transaction. On MariaDB and MySQL, each DDL statement commits nevertheless. PostgreSQL waits for
    the lock without a timeout.

    Raises:
        TransactionConflictError: On MariaDB and MySQL, another process held the lock for LOCK_TIMEOUT seconds.
        sqlalchemy.exc.OperationalError: On SQLite, another connection held the write lock for longer than its timeout.

    """
    guard = {"sqlite": _sqlite, "postgresql": _postgresql}.get(connection.dialect.name, _mysql)
    with guard(connection):
        yield


@contextmanager
def _sqlite(connection: sa.Connection) -> Iterator[None]:
    with connection.begin():  # With BEGIN IMMEDIATE, the first statement takes the write lock.
        yield


@contextmanager
def _postgresql(connection: sa.Connection) -> Iterator[None]:
    with connection.begin():
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_ID)))
        yield


@contextmanager
def _mysql(connection: sa.Connection) -> Iterator[None]:
    # The server's session holds the lock, not the transaction: each DDL statement commits.
    name = sa.func.concat(sa.func.left(sa.func.sha1(sa.func.database()), 16), ":", _LOCK_NAME)
    if not connection.scalar(sa.select(sa.func.get_lock(name, LOCK_TIMEOUT))):
        raise TransactionConflictError("another process is changing the tables of this database: try again later")
    connection.commit()
    try:
        yield
        connection.commit()
    finally:
        if not connection.invalidated:  # The server releases the lock of a lost connection.
            connection.rollback()
            connection.execute(sa.select(sa.func.release_lock(name)))
            connection.commit()


def create(connection: sa.Connection, tables: Collection[sa.Table]) -> None:
    """Create the missing tables and indexes.

    Raises:
        DatabaseError: A different table has the name of one of these tables. Nothing is changed.

    """
    existing = _existing(connection, tables) or {}
    for table in tables:
        if table not in existing:
            order_unique_constraints(table, connection)
            connection.execute(sa.schema.CreateTable(table))
        indexes = existing.get(table, set())
        for name, index in sorted((str(index.name), index) for index in table.indexes):
            if name not in indexes:
                connection.execute(sa.schema.CreateIndex(index))


def order_unique_constraints(table: sa.Table, connection: sa.Connection, **options: object) -> None:
    """Order unique constraints so that a row that violates several of them gets the same error on every database.

    It can be a listener of SQLAlchemy's "before_create" event, which passes the `options`.
    """
    # SQLite reports the violated constraint that was created last, the servers the one that was created first.
    unique = [item for item in table.constraints if isinstance(item, sa.UniqueConstraint)]
    unique.sort(key=lambda constraint: str(constraint.name))
    orders = sorted((item._creation_order for item in unique), reverse=connection.dialect.name == "sqlite")
    for constraint, order in zip(unique, orders, strict=True):
        constraint._creation_order = order


def drop(connection: sa.Connection, tables: Collection[sa.Table]) -> None:
    """Drop the tables that exist, in reverse order.

    Raises:
        DatabaseError: A different table has the name of one of these tables. Nothing is changed.

    """
    existing = _existing(connection, tables)
    for table in reversed(list(tables)):
        if existing is None or table in existing:
            connection.execute(sa.schema.DropTable(table))


def exists(connection: sa.Connection, table: sa.Table) -> bool:
    """Return whether a table with this name exists."""
    return sa.inspect(connection).has_table(table.name, connection.schema_for_object(table))


def is_same(connection: sa.Connection, table: sa.Table) -> bool:
    """Return whether the existing table of this name has all columns and named constraints of this table."""
    inspector = sa.inspect(connection)
    name_and_schema = (table.name, connection.schema_for_object(table))
    constraints = (
        inspector.get_check_constraints(*name_and_schema)
        + inspector.get_unique_constraints(*name_and_schema)
        + inspector.get_foreign_keys(*name_and_schema)
    )
    names = {item["name"] for item in constraints}
    columns = {item["name"] for item in inspector.get_columns(*name_and_schema)}
    # Only PostgreSQL stores the name of a primary key.
    expected = {item.name for item in table.constraints if not isinstance(item, sa.PrimaryKeyConstraint)}
    return names >= expected and columns >= set(table.columns.keys())


def _existing(connection: sa.Connection, tables: Collection[sa.Table]) -> dict[sa.Table, set[str | None]] | None:
    """Return the existing tables with the names of their indexes; None if Alembic only prints the SQL."""
    if not isinstance(connection, sa.Connection):
        return None
    found = {}
    for table in filter(partial(exists, connection), tables):
        if is_same(connection, table):
            indexes = sa.inspect(connection).get_indexes(table.name, connection.schema_for_object(table))
            found[table] = {index["name"] for index in indexes}
        elif _is_name_taken(connection, table):
            raise DatabaseError(
                f'the table "{table.name}" already exists, but it is not the one of this package: rename it, or use'
                " another database or schema"
            )
    return found


def _is_name_taken(connection: sa.Connection, table: sa.Table) -> bool:
    if connection.dialect.name != "postgresql":
        return True
    # The existing table may be in a schema of the search path that is not the one that CREATE TABLE uses.
    schema = connection.schema_for_object(table) or connection.scalar(sa.select(sa.func.current_schema()))
    return sa.inspect(connection).has_table(table.name, schema)
