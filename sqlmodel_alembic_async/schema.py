"""Tables made and removed, one process at a time: what an interruption left half done is recognised and finished."""

import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial

import sqlalchemy as sa

from .errors import DatabaseError, TransactionConflictError

LOCK_TIMEOUT = 3600  # Seconds that MariaDB and MySQL let one process wait for another one's changes.
SQLITE_LOCK_TIMEOUT = 60  # Seconds that SQLite lets a migration wait for any other writer.
TABLE_LOCK_TIMEOUT = (
    10  # Seconds that a change waits for transactions that use the tables: new readers queue behind it.
)

# Earlier versions of this package take the same locks. PostgreSQL's are numbers.
_LOCK = 0x5A17E7
_LOCK_NAME = "sqlmodel_alembic_async_version"


@contextmanager
def alone(connection: sa.Connection) -> Iterator[None]:
    """Keep other processes from changing the schema: they wait until this block ends. It commits, or rolls back.

    Raises:
        DatabaseError: The URL names no database.
        TransactionConflictError: Another process has not ended in time.

    """
    guard = {"sqlite": _sqlite, "postgresql": _postgresql}.get(connection.dialect.name, _mysql)
    with guard(connection):
        yield


@contextmanager
def _sqlite(connection: sa.Connection) -> Iterator[None]:
    if getattr(connection.connection, "isolation_level", "") is None:
        connection.execution_options(isolation_level="SERIALIZABLE")  # An engine in AUTOCOMMIT begins no transaction.
    with _locked_sqlite(connection):
        yield


def _locked_sqlite(connection: sa.Connection) -> sa.Transaction:
    deadline = time.monotonic() + SQLITE_LOCK_TIMEOUT
    while True:
        transaction = connection.begin()
        try:
            connection.exec_driver_sql("SELECT 1")  # IMMEDIATE: the first statement takes the lock.
            return transaction
        except sa.exc.OperationalError as error:
            transaction.rollback()
            is_busy = getattr(error.driver_exception, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > deadline:
                raise


@contextmanager
def _postgresql(connection: sa.Connection) -> Iterator[None]:
    # In a stricter level a process that has waited would not see the tables that the other one made meanwhile.
    connection.execution_options(isolation_level="READ COMMITTED")
    with connection.begin():
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        connection.execute(sa.select(sa.func.set_config("lock_timeout", f"{TABLE_LOCK_TIMEOUT}s", True)))
        yield


@contextmanager
def _mysql(connection: sa.Connection) -> Iterator[None]:
    # The lock is the session's: each DDL statement commits.
    _require_database(connection)
    name = sa.func.concat(sa.func.left(sa.func.sha1(sa.func.database()), 16), ":", _LOCK_NAME)
    lock = sa.select(sa.func.get_lock(name, LOCK_TIMEOUT), sa.literal_column("@@SESSION.lock_wait_timeout"))
    locked, timeout = connection.execute(lock).one()
    if not locked:
        raise TransactionConflictError("another process is changing the tables of this database: try again later")
    try:
        connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {TABLE_LOCK_TIMEOUT}")
        connection.commit()
        yield
        connection.commit()
    finally:
        if not connection.invalidated:  # A lost connection has lost its lock.
            connection.rollback()
            connection.exec_driver_sql("UNLOCK TABLES")
            connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {timeout}")
            connection.execute(sa.select(sa.func.release_lock(name)))
            connection.commit()


def commits_each_statement(connection: sa.Connection) -> bool:
    """Tell whether an interruption leaves a part of the changes: the database commits each DDL statement."""
    return connection.dialect.name not in ("sqlite", "postgresql")


def _require_database(connection: sa.Connection) -> None:
    if commits_each_statement(connection) and connection.dialect.default_schema_name is None:
        raise DatabaseError("the database URL names no database: add its name, as in driver://user@host/name")


def create(connection: sa.Connection, tables: Collection[sa.Table]) -> None:
    """Create the tables and indexes that are missing.

    Raises:
        DatabaseError: A different table has the name of one of these. Nothing is changed.

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
    """Have every engine name the same one of several unique values that are taken."""
    # SQLite names the one whose constraint was created last, the servers the first.
    unique = [item for item in table.constraints if isinstance(item, sa.UniqueConstraint)]
    unique.sort(key=lambda constraint: str(constraint.name))
    places = sorted((item._creation_order for item in unique), reverse=connection.dialect.name == "sqlite")
    for constraint, place in zip(unique, places, strict=True):
        constraint._creation_order = place


def drop(connection: sa.Connection, tables: Collection[sa.Table]) -> None:
    """Drop the tables that are there, the last one first.

    Raises:
        DatabaseError: A different table has the name of one of these, or a foreign key to one of them. Nothing is
            changed.

    """
    existing = _existing(connection, tables)
    for table in existing or ():
        if others := referring_tables(connection, table) - {table.name for table in tables}:
            raise DatabaseError(
                f'the table "{min(others)}" has a foreign key to "{table.name}": drop that key, or its table, first'
            )
    for table in reversed(list(tables)):
        if existing is None or table in existing:
            connection.execute(sa.schema.DropTable(table))


def drop_unused(connection: sa.Connection, tables: Collection[sa.Table]) -> bool:
    """Drop the tables, and return True, unless one of them has a row. For MariaDB and MySQL, inside alone()."""
    # A transaction that is under way may commit a row just after the look.
    locks = ", ".join(f"{_place(connection, table)} WRITE" for table in tables)
    connection.exec_driver_sql(f"LOCK TABLES {locks}")
    rows = [sa.select(sa.literal(1)).select_from(table).limit(1) for table in tables]
    unused = not any(connection.execute(query).first() for query in rows)
    if unused:
        drop(connection, tables)
    connection.exec_driver_sql("UNLOCK TABLES")
    return unused


def exists(connection: sa.Connection, table: sa.Table) -> bool:
    """Tell whether there is a table with this name."""
    _require_database(connection)
    return sa.inspect(connection).has_table(table.name, connection.schema_for_object(table))


_REFERRING = {
    "sqlite": "SELECT m.name FROM sqlite_master AS m JOIN pragma_foreign_key_list(m.name) AS k"
    " WHERE m.type = 'table' AND lower(k.\"table\") = :name",
    "postgresql": "SELECT c.relname FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid"
    " WHERE k.contype = 'f' AND k.confrelid = to_regclass(:place)",
    "mysql": "SELECT table_name FROM information_schema.key_column_usage"
    " WHERE referenced_table_schema = coalesce(:schema, database()) AND referenced_table_name = :name",
}


def referring_tables(connection: sa.Connection, table: sa.Table) -> set[str]:
    """Return the names of the tables, a host's too, that have a foreign key to this one."""
    query = sa.text(_REFERRING.get(connection.dialect.name, _REFERRING["mysql"]))
    place = {"name": table.name, "schema": connection.schema_for_object(table), "place": _place(connection, table)}
    return set(connection.scalars(query, {name: place[name] for name in query._bindparams}))


def _place(connection: sa.Connection, table: sa.Table) -> str:
    preparer = connection.dialect.identifier_preparer
    parts = filter(None, (connection.schema_for_object(table), table.name))
    return ".".join(map(preparer.quote_identifier, parts))


def is_same(connection: sa.Connection, table: sa.Table) -> bool:
    """Tell whether the table with this name has all columns and named constraints of this one."""
    inspector = sa.inspect(connection)
    place = (table.name, connection.schema_for_object(table))
    try:
        constraints = (
            inspector.get_check_constraints(*place)
            + inspector.get_unique_constraints(*place)
            + inspector.get_foreign_keys(*place)
        )
    except sa.exc.NoSuchTableError:  # SQLite finds a table whatever the case of its name, SQLAlchemy does not.
        return False
    names = {item["name"] for item in constraints}
    columns = {item["name"] for item in inspector.get_columns(*place)}
    # Only PostgreSQL keeps the name of a primary key.
    expected = {item.name for item in table.constraints if not isinstance(item, sa.PrimaryKeyConstraint)}
    return names >= expected and columns >= set(table.columns.keys())


def _existing(connection: sa.Connection, tables: Collection[sa.Table]) -> dict[sa.Table, set[str | None]] | None:
    """Return the tables that are there, with the names of their indexes; None where Alembic only prints the SQL."""
    if not isinstance(connection, sa.Connection):
        return None
    found = {}
    for table in filter(partial(exists, connection), tables):
        if is_same(connection, table):
            indexes = sa.inspect(connection).get_indexes(table.name, connection.schema_for_object(table))
            found[table] = {index["name"] for index in indexes}
        elif _is_in_the_way(connection, table):
            raise DatabaseError(
                f'this database has a table "{table.name}" that is not this package\'s: rename it, or use another'
                " database or schema"
            )
    return found


def _is_in_the_way(connection: sa.Connection, table: sa.Table) -> bool:
    if connection.dialect.name != "postgresql":
        return True
    # The table may be in another schema of the search path than the one where CREATE TABLE puts this one.
    schema = connection.schema_for_object(table) or connection.scalar(sa.select(sa.func.current_schema()))
    return sa.inspect(connection).has_table(table.name, schema)
