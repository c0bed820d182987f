"""Access to Connection.info, the dictionary that SQLAlchemy keeps for each driver connection."""

from typing import Any

from sqlalchemy.engine import Connection


def info_of(connection: Connection) -> dict[Any, Any]:
    """Return Connection.info, or an empty dictionary where there is none.

    A lost connection has none, nor has the connection on which SQLAlchemy initializes a dialect.
    """
    try:
        return {} if connection.invalidated else connection.info  # A lost connection would be opened anew.
    except NotImplementedError:  # Raised from an error handler, it would hide the original error.
        return {}
