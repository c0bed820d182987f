"""A real IPython, driven at its prompt."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pexpect
import pytest
from sqlalchemy.engine import URL

PROMPT = re.compile(r"In \[\d+\]: ")


class Shell:
    """An IPython at its prompt; `type()` returns what a cell shows."""

    environment: ClassVar = {"PYTHONWARNINGS": "default", "TERM": "dumb"}

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        options = ["--simple-prompt", "--no-banner", "--colors=nocolor", "--no-confirm-exit"]
        self.process = pexpect.spawn(
            sys.executable,
            ["-m", "IPython", *options, *arguments],
            cwd=str(folder),
            env={**os.environ, **self.environment, "IPYTHONDIR": str(folder / "ipython"), **environment},
            encoding="utf-8",
            timeout=30,
            echo=False,
            dimensions=(50, 300),
        )
        self.process.expect(PROMPT)
        self.greeting = self.process.before.replace("\r", "")

    def type(self, cell: str) -> str:
        self.process.sendline(cell)
        self.process.expect(PROMPT)
        return re.sub(r"^Out\[\d+\]: \n?", "", self.process.before.replace("\r", "").strip())

    def leave(self) -> str:
        self.process.sendline("exit()")
        self.process.expect(pexpect.EOF)
        self.process.close()
        assert self.process.exitstatus == 0
        return self.process.before.replace("\r", "").strip()


def test_the_session_of_the_tutorials_works_as_typed(empty_url: URL, tmp_path: Path) -> None:
    url = empty_url.render_as_string(hide_password=False)
    shell = Shell(tmp_path, "--ext", "sqlmodel_alembic_async", DATABASE_URL=url)
    assert "Migrations are pending: await migrations.upgrade()" in shell.greeting
    assert empty_url.render_as_string() in shell.greeting

    for silent in (
        "await migrations.upgrade()",
        'user_chonky = User(name="chonky")',
        'pet_frog = Pet(name="phroge")',
        "session.add_all((user_chonky, pet_frog))",
        "await session.commit()",
        "await session.refresh(user_chonky)",
    ):
        assert shell.type(silent) == ""
    assert shell.type("print(user_chonky)") == "User(id=1, name='chonky')"
    assert 'load it with `await session.refresh(user, ["pets"])`' in shell.type("user_chonky.pets")
    assert shell.type('await session.refresh(user_chonky, ["pets"])') == ""
    assert shell.type("user_chonky.pets") == "[]"
    assert (
        shell.type('await create_pet(session, PetCreate(name="Rex", species="dog"))')
        == "Pet(id=2, name='Rex', species='dog')"
    )
    assert shell.type('await list_pets(session, species="dog")').splitlines() == [
        "id  name  species",
        "--  ----  -------",
        " 2  Rex   dog",
        "1 row",
    ]
    assert shell.type('await list_users(session, name_prefix="x")') == "no rows"
    assert shell.type("await pet_statistics(session)").splitlines()[-3:] == [
        "           no            2",
        "born in    not known     2",
        "2 pets",
    ]
    assert shell.type("(await session.exec(select(User))).all()") == "[User(id=1, name='chonky')]"
    assert "UserNotFoundError: no user with id 9" in shell.type("await get_user(session, 9)")
    assert shell.type("await session.commit()") == ""
    assert shell.leave() == ""

    again = Shell(tmp_path, DATABASE_URL=url)
    assert "The tables are up to date." in again.type("%load_ext sqlmodel_alembic_async")
    assert again.type("await count_pets(session)") == "2"
    assert again.leave() == ""


def test_a_notebook_ends_without_an_error(empty_url: URL) -> None:
    program = """
import asyncio, sys
from sqlmodel import text
from sqlmodel_alembic_async import database, load_ipython_extension
names = {}
class Notebook:
    push = names.update
async def cells():
    load_ipython_extension(Notebook)
    await (await names["session"].connection()).execute(text("SELECT 1"))
asyncio.run(cells())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "DATABASE_URL": empty_url.render_as_string(hide_password=False)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.returncode, "Exception ignored" in done.stderr, "atexit" in done.stderr) == (0, False, False), (
        done.stderr
    )
    assert "Migrations are pending" in done.stdout


@pytest.mark.parametrize("url", ["postgresql://ada:secret@127.0.0.1:1/x", "mysql://ada:secret@127.0.0.1:1/x"])
def test_a_server_that_does_not_answer_is_told_in_a_sentence(url: str, tmp_path: Path) -> None:
    shell = Shell(tmp_path, "--ext", "sqlmodel_alembic_async", DATABASE_URL=url)

    assert "The state of the migrations is unknown: the database cannot be reached" in shell.greeting
    assert "secret" not in shell.greeting
    assert shell.leave() == ""


def test_the_default_is_a_private_file_in_this_folder(tmp_path: Path) -> None:
    shell = Shell(tmp_path, "--ext", "sqlmodel_alembic_async", DATABASE_URL="")

    assert "sqlite+aiosqlite:///./data.db" in shell.greeting
    assert shell.leave() == ""
    assert (tmp_path / "data.db").stat().st_mode & 0o777 == 0o600
