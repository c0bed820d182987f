"""Create and drop tables; complete a creation or a removal that was interrupted."""

from collections.abc import Collection
from functools import partial

import sqlalchemy as sa

from .errors import DatabaseError

_REFERRING = {
    "sqlite": "SELECT m.name FROM sqlite_master AS m JOIN pragma_foreign_key_list(m.name) AS k"
    " WHERE m.type = 'table' AND lower(k.\"table\") = :name",
    "postgresql": "SELECT c.relname FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid"
    " WHERE k.contype = 'f' AND k.confrelid = to_regclass(:qualified_name)",
    "mysql": "SELECT table_name FROM information_schema.key_column_usage"
    " WHERE referenced_table_schema = coalesce(:schema, database()) AND referenced_table_name = :name",
}


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
        DatabaseError: A different table has the name of one of these tables, or another table has a foreign key to one
            of them. Nothing is changed.

    """
    existing = _existing(connection, tables)
    for table in existing or ():
        if others := referring_tables(connection, table) - {table.name for table in tables}:
            raise DatabaseError(
                f'the table "{min(others)}" has a foreign key to "{table.name}": drop that key or table first'
            )
    for table in reversed(list(tables)):
        if existing is None or table in existing:
            connection.execute(sa.schema.DropTable(table))


def drop_if_empty(connection: sa.Connection, tables: Collection[sa.Table]) -> bool:
    """Drop the tables if none of them has a row, on MariaDB and MySQL; return whether they were dropped.

    LOCK TABLES ensures that no other transaction commits a row between the query and the DROP TABLE.

    Raises:
        DatabaseError: As drop().

    """
    locks = ", ".join(f"{_qualified_name(connection, table)} WRITE" for table in tables)
    connection.exec_driver_sql(f"LOCK TABLES {locks}")
    queries = [sa.select(sa.literal(1)).select_from(table).limit(1) for table in tables]
    are_empty = not any(connection.execute(query).first() for query in queries)
    if are_empty:
        drop(connection, tables)
    connection.exec_driver_sql("UNLOCK TABLES")
    return are_empty


def commits_each_statement(connection: sa.Connection) -> bool:
    """Return whether the database commits each DDL statement, so that an interruption leaves a part of the changes."""
    return connection.dialect.name not in ("sqlite", "postgresql")


def require_database(connection: sa.Connection) -> None:
    """Check that the session of a MariaDB or MySQL server has a database.

    Raises:
        DatabaseError: The database URL names no database.

    """
    if commits_each_statement(connection) and connection.dialect.default_schema_name is None:
        raise DatabaseError("the database URL names no database: add its name, as in driver://user@host/name")


def exists(connection: sa.Connection, table: sa.Table) -> bool:
    """Return whether a table with this name exists.

    Raises:
        DatabaseError: The database URL names no database.

    """
    require_database(connection)
    return sa.inspect(connection).has_table(table.name, connection.schema_for_object(table))


def referring_tables(connection: sa.Connection, table: sa.Table) -> set[str]:
    """Return the names of all tables that have a foreign key to this one; they may belong to other applications."""
    parameters = {
        "name": table.name,
        "schema": connection.schema_for_object(table),
        "qualified_name": _qualified_name(connection, table),
    }
    query = _REFERRING.get(connection.dialect.name, _REFERRING["mysql"])
    return set(connection.scalars(sa.text(query), parameters))


def _qualified_name(connection: sa.Connection, table: sa.Table) -> str:
    parts = filter(None, (connection.schema_for_object(table), table.name))
    return ".".join(map(connection.dialect.identifier_preparer.quote_identifier, parts))


def is_same(connection: sa.Connection, table: sa.Table) -> bool:
    """Return whether the existing table of this name has all columns and named constraints of this table."""
    inspector = sa.inspect(connection)
    name_and_schema = (table.name, connection.schema_for_object(table))
    try:
        constraints = (
            inspector.get_check_constraints(*name_and_schema)
            + inspector.get_unique_constraints(*name_and_schema)
            + inspector.get_foreign_keys(*name_and_schema)
        )
    except sa.exc.NoSuchTableError:  # The names differ in case: SQLite ignores this, SQLAlchemy does not.
        return False
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
