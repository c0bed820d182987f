"""What the environment may say."""

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings read from the environment; an empty variable counts as absent."""

    model_config = SettingsConfigDict(env_ignore_empty=True)

    database_url: SecretStr = SecretStr("sqlite+aiosqlite:///./data.db")
