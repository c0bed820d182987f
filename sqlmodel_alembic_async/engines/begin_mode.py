"""How a transaction begins: an execution option that each engine reads in its own way."""

from typing import Literal

from sqlalchemy.engine import Connection

BEGIN = "sqlmodel_alembic_async_begin"

# IMMEDIATE takes SQLite's write lock at once, DEFERRED at the first write, READ ONLY never; AUTOCOMMIT does not begin.
Mode = Literal["IMMEDIATE", "DEFERRED", "READ ONLY", "AUTOCOMMIT"]


def begin_mode(connection: Connection) -> Mode:
    """Return how this connection's transaction is to begin."""
    mode: Mode = connection.get_execution_options().get(BEGIN, "DEFERRED")
    return mode
