"""PostgreSQL, MariaDB and MySQL: settings of an engine, the check of idle connections, and cancellation."""

from .settings import prepare

__all__ = ["prepare"]
