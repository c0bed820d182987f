"""The execution option that selects how a transaction begins.

IMMEDIATE takes SQLite's write lock at BEGIN, DEFERRED takes it at the first write, READ ONLY never takes it. AUTOCOMMIT
sends no BEGIN.
"""

from typing import Literal

from sqlalchemy.engine import Connection

BEGIN = "sqlmodel_alembic_async_begin"

Mode = Literal["IMMEDIATE", "DEFERRED", "READ ONLY", "AUTOCOMMIT"]


def begin_mode(connection: Connection) -> Mode:
    """Return how the next transaction of this connection begins; the default is "DEFERRED"."""
    mode: Mode = connection.get_execution_options().get(BEGIN, "DEFERRED")
    return mode
