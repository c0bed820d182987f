"""Column types that store the same value in the same way on every engine."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import Dialect
from sqlmodel.sql.sqltypes import UTCDateTime as _UTCDateTime

_MOMENT_LENGTH = len("2026-01-01 00:00:00.000000")
_MYSQL_FAMILY = {"mysql", "mariadb"}


class UTCDateTime(_UTCDateTime):
    """A datetime with a time zone, stored in UTC with microseconds on every engine."""

    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """Use DATETIME(6) on MariaDB and MySQL, where a plain DATETIME has no microseconds."""
        if dialect.name in _MYSQL_FAMILY:
            return dialect.type_descriptor(_mysql().DATETIME(fsp=6))
        return super().load_dialect_impl(dialect)

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        """Return a fast conversion to SQLite's text."""
        if dialect.name == "sqlite":
            return lambda value: _text_of_moment(self.process_bind_param(value, dialect))
        return super().bind_processor(dialect)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:
        """Return a fast conversion from SQLite's text: lists spend much of their time on it."""
        if dialect.name == "sqlite":
            return _moment_of_text
        return _moment


def _moment_of_text(value: str | None) -> datetime | None:
    if value is None:
        return None
    if len(value) == _MOMENT_LENGTH:
        return datetime.fromisoformat(value + "+00:00")
    return _moment(datetime.fromisoformat(value))  # Another program wrote it in another format.


def _text_of_moment(value: datetime | None) -> str | None:
    return None if value is None else value.replace(tzinfo=None).isoformat(" ", "microseconds")


def _moment(value: datetime | None) -> datetime | None:
    if value is None or value.tzinfo is UTC:
        return value
    return datetime.combine(value, value.time(), UTC) if value.tzinfo is None else value.astimezone(UTC)


class Text(sa.types.TypeDecorator[str]):
    """Text that compares byte for byte; without a length it has no practical limit."""

    impl = sa.String
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__(length)
        self.length = length

    def __repr__(self) -> str:
        return f"Text({self.length or ''})"

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """Use the binary collation of this engine."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.String(self.length, collation="C"))
        if dialect.name in _MYSQL_FAMILY:
            collation = _mysql_binary_collation(dialect)
            if self.length is None:
                return dialect.type_descriptor(_mysql().LONGTEXT(collation=collation))
            return dialect.type_descriptor(_mysql().VARCHAR(self.length, collation=collation))
        return dialect.type_descriptor(sa.String(self.length))


def _mysql() -> Any:
    from sqlalchemy.dialects import mysql

    return mysql


def _mysql_binary_collation(dialect: Dialect) -> str:
    """Return a collation that does not ignore trailing spaces, as utf8mb4_bin does; MariaDB's if there is no server."""
    is_mysql = dialect.server_version_info is not None and not getattr(dialect, "is_mariadb", False)
    return "utf8mb4_0900_bin" if is_mysql else "utf8mb4_nopad_bin"
