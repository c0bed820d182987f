"""SQLite: the connection, its cursor, and the engine settings."""

from .connection import connect
from .settings import prepare, shared_memory

__all__ = ["connect", "prepare", "shared_memory"]
