"""What is noted about a connection, for as long as it lives."""

from typing import Any

from sqlalchemy.engine import Connection


def info_of(connection: Connection) -> dict[Any, Any]:
    """Return Connection.info, or an empty dictionary for the connection by which SQLAlchemy gets to know a server."""
    try:
        return connection.info
    except NotImplementedError:  # It would replace the error that is being handled.
        return {}
