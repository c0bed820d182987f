"""What the environment may say."""

from typing import Literal

import pytest

from sqlmodel_alembic_async.settings import Settings


@pytest.mark.parametrize("empty", [None, ""])
def test_without_an_environment_the_data_is_a_file_here(monkeypatch: pytest.MonkeyPatch, empty: str | None) -> None:
    for name in ("DATABASE_URL", "DATABASE_ECHO", "SQLITE_SYNCHRONOUS"):
        if empty is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, empty)

    settings = Settings()

    assert settings.database_url.get_secret_value() == "sqlite+aiosqlite:///./data.db"
    assert settings.database_echo is False
    assert settings.sqlite_synchronous == "FULL"


def test_the_environment_is_read_and_its_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://ada:secret@host/pets")
    monkeypatch.setenv("SQLITE_SYNCHRONOUS", "EXTRA")

    settings = Settings()

    assert settings.database_url.get_secret_value() == "postgresql://ada:secret@host/pets"
    assert settings.sqlite_synchronous == "EXTRA"
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(("text", "echo"), [("1", True), ("true", True), ("0", False), ("values", "values")])
def test_the_environment_says_what_is_logged(
    monkeypatch: pytest.MonkeyPatch, text: str, echo: bool | Literal["values"]
) -> None:
    monkeypatch.setenv("DATABASE_ECHO", text)

    assert Settings().database_echo == echo
