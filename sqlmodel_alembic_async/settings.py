"""What the environment may say."""

from typing import Literal

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings read from the environment; an empty variable counts as absent.

    SQLITE_SYNCHRONOUS chooses what a power failure may cost: with FULL nothing that was committed, with NORMAL the
    last commits. https://www.sqlite.org/pragma.html#pragma_synchronous
    """

    model_config = SettingsConfigDict(env_ignore_empty=True)

    database_url: SecretStr = SecretStr("sqlite+aiosqlite:///./data.db")
    sqlite_synchronous: Literal["NORMAL", "FULL", "EXTRA"] = "FULL"
