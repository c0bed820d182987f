"""SQLite: the connection, its cursor, and the engine settings."""

from .settings import LOCK_TIMEOUT, prepare, shared_memory

__all__ = ["LOCK_TIMEOUT", "connect", "prepare", "shared_memory"]
