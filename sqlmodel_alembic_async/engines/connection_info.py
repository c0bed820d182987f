"""Access to Connection.info, the dictionary that SQLAlchemy keeps for each driver connection."""

from typing import Any

from sqlalchemy.engine import Connection


def info_of(connection: Connection) -> dict[Any, Any]:
    """Return Connection.info, or an empty dictionary where there is none.

    The connection on which SQLAlchemy initializes a dialect has none, and so has a lost connection.
    """
    try:
        return {} if connection.invalidated else connection.info  # To ask a lost connection would open a new one.
    except NotImplementedError:  # Raised from an error handler, it would hide the original error.
        return {}
