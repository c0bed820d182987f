"""Settings from environment variables."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings from environment variables of the same names in upper case; an empty variable counts as not set.

    Attributes:
        database_url: The URL of the default database.
        database_echo: Whether SQL statements are logged; "values": with their values, which are personal data.
        sqlite_synchronous: How SQLite protects commits from a power failure: "NORMAL" may lose the last commits, "FULL"
            loses none, "EXTRA" also syncs the folder. https://www.sqlite.org/pragma.html#pragma_synchronous
        sqlite_lock_timeout: Seconds that a writer waits for other writers of a SQLite database; None is the default.

    """

    model_config = SettingsConfigDict(env_ignore_empty=True)

    database_url: SecretStr = SecretStr("sqlite+aiosqlite:///./data.db")
    database_echo: bool | Literal["values"] = False
    sqlite_synchronous: Literal["NORMAL", "FULL", "EXTRA"] = "FULL"
    sqlite_lock_timeout: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
