"""A real IPython, driven at its prompt."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pexpect
import pytest
from jupyter_client.manager import start_new_kernel
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database, PetCreate, create_pet, stream_pets, unload_ipython_extension

from .measuring import paused
from .migrating import quoted

PROMPT = re.compile(r"In \[\d+\]: ")


class Shell:
    """An IPython at its prompt; `type()` returns what a cell shows."""

    environment: ClassVar = {"PYTHONWARNINGS": "default", "TERM": "dumb"}

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        options = ["--simple-prompt", "--no-banner", "--colors=nocolor", "--no-confirm-exit"]
        environment = {**os.environ, **self.environment, "IPYTHONDIR": str(folder / "ipython"), **environment}
        with paused():  # The program is measured nevertheless: its environment says so.
            self.process = pexpect.spawn(
                sys.executable,
                ["-m", "IPython", *options, *arguments],
                cwd=str(folder),
                env=environment,
                encoding="utf-8",
                timeout=30,
                echo=False,
                dimensions=(50, 300),
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # A background program ignores it.
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


OpenShell = Callable[..., Shell]


@pytest.fixture
def open_shell(tmp_path: Path) -> Iterator[OpenShell]:
    """Start an IPython in the test's folder; a failed test leaves none behind, with an open transaction."""
    shells: list[Shell] = []

    def open_shell(*arguments: str, **environment: str) -> Shell:
        shells.append(Shell(tmp_path, *arguments, **environment))
        return shells[-1]

    yield open_shell
    for shell in shells:
        shell.process.close(force=True)


def test_the_session_of_the_tutorials_works_as_typed(empty_url: URL, open_shell: OpenShell) -> None:
    url = empty_url.render_as_string(hide_password=False)
    shell = open_shell("--ext", "sqlmodel_alembic_async", DATABASE_URL=url)
    assert "Migrations are pending: await migrations.upgrade()" in shell.greeting
    assert empty_url.render_as_string() in shell.greeting

    for cell, told in (
        ("await migrations.upgrade()", ""),
        ('user_chonky = User(name="chonky")', ""),
        ('pet_frog = Pet(name="phroge")', ""),
        ("session.add_all((user_chonky, pet_frog))", "2 row changes wait for `await session.commit()`."),
        ("await session.commit()", ""),
        ("await session.refresh(user_chonky)", ""),
    ):
        assert shell.type(cell) == told
    assert shell.type("print(user_chonky)") == "User(id=1, name='chonky')"
    assert 'load it with `await session.refresh(user, ["pets"])`' in shell.type("user_chonky.pets")
    assert shell.type('await session.refresh(user_chonky, ["pets"])') == ""
    assert shell.type("user_chonky.pets") == "[]"
    assert shell.type('await create_pet(session, PetCreate(name="Rex", species="dog"))').splitlines() == [
        "Pet(id=2, name='Rex', species='dog')",
        "1 row change waits for `await session.commit()`.",
    ]
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

    again = open_shell(DATABASE_URL=url)
    assert "The tables are up to date." in again.type("%load_ext sqlmodel_alembic_async")
    assert again.type("await count_pets(session)") == "2"
    assert again.leave() == ""


def test_a_notebook_ends_without_an_error(empty_url: URL) -> None:
    program = """
import asyncio, sys
from IPython.core.events import EventManager, available_events
from sqlmodel import text
from sqlmodel_alembic_async import database, load_ipython_extension
names = {}
class Notebook:
    push = names.update
Notebook.events = EventManager(Notebook, available_events)
async def cells():
    load_ipython_extension(notebook)
    await (await names["session"].connection()).execute(text("SELECT 1"))
notebook = Notebook()
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
def test_a_server_that_does_not_answer_is_told_in_a_sentence(url: str, open_shell: OpenShell) -> None:
    shell = open_shell("--ext", "sqlmodel_alembic_async", DATABASE_URL=url)

    assert "The state of the migrations is unknown: the database cannot be reached" in shell.greeting
    assert "secret" not in shell.greeting
    assert shell.leave() == ""


def test_the_default_is_a_private_file_in_this_folder(tmp_path: Path, open_shell: OpenShell) -> None:
    shell = open_shell("--ext", "sqlmodel_alembic_async", DATABASE_URL="")

    assert "sqlite+aiosqlite:///./data.db" in shell.greeting
    assert shell.leave() == ""
    assert (tmp_path / "data.db").stat().st_mode & 0o777 == 0o600


@pytest.fixture
def url(migrated_url: URL) -> Iterator[str]:
    """The URL of the migrated database, which is left without rows."""
    yield migrated_url.render_as_string(hide_password=False)
    asyncio.run(delete_all(migrated_url))


async def delete_all(url: URL) -> None:
    async with Database(url) as db, db.engine.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM pet")
        await connection.exec_driver_sql(f"DELETE FROM {quoted(db, 'user')}")


async def pets(url: str) -> list[str]:
    async with Database(url) as db, db.reading() as session:
        return [pet.name async for pet in stream_pets(session, order_by="id")]


async def create(url: str, name: str) -> None:
    async with Database(url) as db, db.transaction() as session:
        await create_pet(session, PetCreate(name=name))


def test_the_open_session_reads_and_writes_beside_other_processes(url: str, open_shell: OpenShell) -> None:
    shell = open_shell("--ext", "sqlmodel_alembic_async", DATABASE_URL=url)
    assert shell.type("await count_pets(session)") == "0"
    asyncio.run(create(url, "Rex"))

    assert shell.type("rex = (await list_pets(session)).items[0]; rex.name") == "'Rex'"
    asyncio.run(create(url, "Max"))
    assert "SNAPSHOT" not in shell.type('leo = await create_pet(session, PetCreate(name="Leo"))')
    assert shell.type("await session.commit()") == ""
    assert shell.type("rex.name, leo.name") == "('Rex', 'Leo')"
    assert shell.leave() == ""
    assert asyncio.run(pets(url)) == ["Rex", "Max", "Leo"]


def test_a_cell_that_failed_leaves_a_session_that_works(url: str, open_shell: OpenShell) -> None:
    shell = open_shell("--ext", "sqlmodel_alembic_async", DATABASE_URL=url)
    ada = 'ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com"))'
    assert shell.type(ada) == "1 row change waits for `await session.commit()`."

    *_, error, told = shell.type(ada).splitlines()
    assert error == "AlreadyExistsError: another row already has this email"
    assert told == "The cell failed: the session is rolled back, and 1 row change is undone."
    assert shell.type("await count_users(session)") == "0"
    assert shell.type(ada) == "1 row change waits for `await session.commit()`."

    assert shell.type("nonsense").splitlines()[-1] == "1 row change waits for `await session.commit()`."
    assert shell.type("await session.commit()") == ""
    assert shell.leave() == ""


def test_leaving_with_row_changes_tells_that_they_are_lost(url: str, open_shell: OpenShell) -> None:
    shell = open_shell("--ext", "sqlmodel_alembic_async", DATABASE_URL=url)
    shell.type('await create_pets(session, [PetCreate(name="Rex"), PetCreate(name="Max")])')
    shell.type('session.add(Pet(name="Leo"))')

    assert shell.leave() == "Not committed: 3 row changes are lost."
    assert asyncio.run(pets(url)) == []


def test_ctrl_c_ends_a_cell_and_its_transaction(url: str, open_shell: OpenShell) -> None:
    shell = open_shell("--ext", "sqlmodel_alembic_async", DATABASE_URL=url)
    shell.type("import asyncio")
    shell.process.sendline('await create_pet(session, PetCreate(name="Rex")); print("ready"); await asyncio.sleep(60)')
    shell.process.expect("ready")

    # An interrupt in the microseconds before the event loop waits is handled only when something else wakes the loop.
    time.sleep(0.5)
    shell.process.sendintr()
    shell.process.expect(PROMPT)

    assert "The cell failed: the session is rolled back, and 1 row change is undone." in shell.process.before
    assert shell.type("await count_pets(session)") == "0"
    assert shell.leave() == ""


def test_the_extension_is_loaded_again_and_unloaded(url: str, open_shell: OpenShell) -> None:
    shell = open_shell("--ext", "sqlmodel_alembic_async", DATABASE_URL=url)
    shell.type("first = session")
    assert "is already loaded" in shell.type("%load_ext sqlmodel_alembic_async")
    assert "up to date" in shell.type("load_ipython_extension(get_ipython())")
    assert shell.type("session is first") == "True"

    shell.type('session.add(Pet(name="Rex"))')
    reloaded = shell.type("%reload_ext sqlmodel_alembic_async")
    assert "Not committed: 1 row change is lost." in reloaded
    assert "up to date" in reloaded
    assert shell.type("session is first") == "False"
    assert shell.type("await count_pets(session)") == "0"

    assert shell.type("%unload_ext sqlmodel_alembic_async") == ""
    assert "NameError: name 'session' is not defined" in shell.type("session")
    assert shell.leave() == ""


def test_a_session_of_the_users_own_is_the_users(url: str, open_shell: OpenShell) -> None:
    shell = open_shell("--ext", "sqlmodel_alembic_async", DATABASE_URL=url)
    shell.type('session.add(Pet(name="Rex"))')
    assert shell.type("session = AsyncSession(engine)") == ""

    assert shell.type("await count_pets(session)") == "0"
    assert shell.type("session.in_transaction()") == "True"
    assert shell.type("await session.close()") == ""
    assert shell.leave() == "Not committed: 1 row change is lost."


def test_unloading_what_is_not_loaded_does_nothing() -> None:
    assert unload_ipython_extension(object()) is None  # type: ignore[func-returns-value]  # that is the point


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"DATABASE_URL": "ada:secret"}, "DATABASE_URL: not a database URL: expected driver://user:password@host/name"),
        (
            {"DATABASE_URL": "postgresql+pg8000://ada:secret@h/x"},
            "DATABASE_URL: postgresql+pg8000 is not an async driver: use postgresql+asyncpg",
        ),
        ({"SQLITE_SYNCHRONOUS": "OFF"}, "SQLITE_SYNCHRONOUS: Input should be 'NORMAL', 'FULL' or 'EXTRA'"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_in_one_line(
    environment: dict[str, str], line: str, open_shell: OpenShell
) -> None:
    shell = open_shell("--ext", "sqlmodel_alembic_async", **environment)

    assert shell.greeting.strip() == f"sqlmodel_alembic_async is not loaded: {line}"
    assert shell.leave() == ""


class Notebook:
    """A kernel of IPython; `run()` returns what a cell shows."""

    def __init__(self, url: str) -> None:
        environment = {**os.environ, "PYTHONWARNINGS": "default", "DATABASE_URL": url}
        self.manager, self.client = start_new_kernel(env=environment)

    def run(self, cell: str) -> str:
        shown: list[str] = []

        def note(message: dict[str, Any]) -> None:
            content = message["content"]
            texts = {"stream": "text", "execute_result": "data", "error": "evalue"}
            if (kind := message["msg_type"]) in texts:
                part = content[texts[kind]]
                shown.append(part if isinstance(part, str) else part["text/plain"])

        self.client.execute_interactive(cell, output_hook=note, timeout=60)
        return "".join(shown).strip()

    def shut_down(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel()


@pytest.fixture
def notebook(url: str) -> Iterator[Notebook]:
    notebook = Notebook(url)
    yield notebook
    notebook.shut_down()


@pytest.mark.filterwarnings("ignore:.*TCP without encryption")  # The kernel is on this machine.
def test_a_notebook_has_short_transactions_too(notebook: Notebook, url: str) -> None:
    assert "up to date" in notebook.run("%load_ext sqlmodel_alembic_async")
    assert notebook.run("await count_pets(session)") == "0"
    asyncio.run(create(url, "Rex"))
    assert notebook.run("await count_pets(session)") == "1"

    waits = "1 row change waits for `await session.commit()`."
    assert notebook.run('ada = await create_user(session, UserCreate(name="Ada", email="a@example.com"))') == waits
    failed = notebook.run('await create_user(session, UserCreate(name="Eve", email="a@example.com"))')
    assert failed.endswith("The cell failed: the session is rolled back, and 1 row change is undone.")
    assert notebook.run('session.add(Pet(name="Max"))') == waits
    assert notebook.run("await session.commit()") == ""
    assert asyncio.run(pets(url)) == ["Rex", "Max"]

    queued = [notebook.client.execute("await count_pets(session); await session.commit()") for _ in range(20)]
    replies = [notebook.client.get_shell_msg(timeout=60) for _ in queued]
    assert {reply["content"]["status"] for reply in replies} == {"ok"}

    assert notebook.run("%unload_ext sqlmodel_alembic_async") == ""
    assert notebook.run("await asyncio.sleep(0)").endswith("name 'asyncio' is not defined")
