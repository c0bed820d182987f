"""SQLite: the connection, its cursor, and the settings of an engine."""

from .connection import connect
from .settings import prepare, shared_memory

__all__ = ["connect", "prepare", "shared_memory"]
