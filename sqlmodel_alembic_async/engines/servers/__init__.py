"""PostgreSQL, MariaDB and MySQL: engine settings, checks of idle connections, and cancellation."""

from .settings import prepare

__all__ = ["prepare"]
