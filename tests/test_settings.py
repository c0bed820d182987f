"""What the environment may say."""

from typing import Literal

import pytest
from pydantic import ValidationError

from sqlmodel_alembic_async.settings import Settings


@pytest.mark.parametrize("empty", [None, ""])
def test_without_an_environment_the_data_is_a_file_here(monkeypatch: pytest.MonkeyPatch, empty: str | None) -> None:
    for name in ("DATABASE_URL", "DATABASE_ECHO", "SQLITE_SYNCHRONOUS", "SQLITE_LOCK_TIMEOUT"):
        if empty is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, empty)

    settings = Settings()

    assert settings.database_url.get_secret_value() == "sqlite+aiosqlite:///./data.db"
    assert settings.database_echo is False
    assert settings.sqlite_synchronous == "FULL"
    assert settings.sqlite_lock_timeout is None


def test_the_environment_is_read_and_its_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://ada:secret@host/pets")
    monkeypatch.setenv("SQLITE_SYNCHRONOUS", "EXTRA")
    monkeypatch.setenv("SQLITE_LOCK_TIMEOUT", "0.5")

    settings = Settings()

    assert settings.database_url.get_secret_value() == "postgresql://ada:secret@host/pets"
    assert settings.sqlite_synchronous == "EXTRA"
    assert settings.sqlite_lock_timeout == 0.5
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "long"])
def test_a_lock_timeout_that_is_no_number_of_seconds_is_refused(monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    monkeypatch.setenv("SQLITE_LOCK_TIMEOUT", seconds)

    with pytest.raises(ValidationError, match="sqlite_lock_timeout"):
        Settings()


@pytest.mark.parametrize(("text", "echo"), [("1", True), ("true", True), ("0", False), ("values", "values")])
def test_the_environment_says_what_is_logged(
    monkeypatch: pytest.MonkeyPatch, text: str, echo: bool | Literal["values"]
) -> None:
    monkeypatch.setenv("DATABASE_ECHO", text)

    assert Settings().database_echo == echo
