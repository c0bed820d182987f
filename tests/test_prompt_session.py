"""IPython's open session: short transactions, no lost change without a word, and no task disturbed."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Iterator

import pytest
from IPython.core.interactiveshell import ExecutionResult
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlmodel import col, select

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    Database,
    Pet,
    PetCreate,
    PetNotFoundError,
    PetUpdate,
    User,
    UserCreate,
    count_pets,
    create_pet,
    create_user,
    get_pet,
    list_pets,
    update_pet,
)
from sqlmodel_alembic_async.prompt_session import PromptSession, event_loop

ADA = UserCreate(name="Ada", email="ada@example.com")


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """A process that a script started in the background ignores interrupts, and so do its children."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def ended(error: BaseException | None = None, seen: str = "error_in_exec") -> ExecutionResult:
    """Return how IPython tells that a cell has ended."""
    result = ExecutionResult(None)
    setattr(result, seen, error)
    return result


class Prompt(PromptSession):
    """Runs a coroutine as a notebook runs a cell: in an event loop that goes on."""

    async def cell(self, *work: Awaitable[object]) -> BaseException | None:
        self.before_cell()
        error = None
        try:
            for each in work:
                await asyncio.ensure_future(each)
        except Exception as raised:
            error = raised
        self.after_cell(ended(error))
        if (ending := self.session.sync_session.ending) is not None:  # type: ignore[attr-defined]  # of this session
            await ending
        return error


@pytest.fixture
async def prompt(db: Database) -> AsyncIterator[Prompt]:
    prompt = Prompt(db.engine)
    yield prompt
    await prompt.session.close()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The event loop of a terminal's cells."""
    loop = event_loop()
    yield loop
    loop.close()


async def commit(prompt: Prompt, *work: Awaitable[object]) -> None:
    await prompt.cell(*work, prompt.session.commit())


async def saved(db: Database) -> int:
    async with db.reading() as session:
        return await count_pets(session)


async def test_a_cell_that_only_read_ends_its_transaction_and_keeps_its_rows(db: Database, prompt: Prompt) -> None:
    session = prompt.session
    await commit(prompt, create_pet(session, PetCreate(name="Rex")))
    await prompt.cell(list_pets(session))
    [pet] = (await list_pets(session)).items
    await prompt.cell(count_pets(session))
    assert not session.in_transaction()

    async with db.transaction() as other:
        await update_pet(other, pet.id, PetUpdate(name="Max"))
        await create_pet(other, PetCreate(name="Leo"))

    assert pet.name == "Rex"
    assert await count_pets(session) == 2
    assert await prompt.cell(update_pet(session, pet.id, PetUpdate(color="brown"))) is None


async def test_row_changes_are_told_once_until_their_number_changes(
    prompt: Prompt, capsys: pytest.CaptureFixture[str]
) -> None:
    session = prompt.session
    await prompt.cell(create_pet(session, PetCreate(name="Rex")))
    assert capsys.readouterr().out == "1 row change waits for `await session.commit()`.\n"

    await prompt.cell(count_pets(session))
    assert capsys.readouterr().out == ""

    await prompt.cell(create_pet(session, PetCreate(name="Max")))
    assert capsys.readouterr().out == "2 row changes wait for `await session.commit()`.\n"

    await commit(prompt)
    assert (capsys.readouterr().out, prompt.count()) == ("", 0)

    session.add(Pet(name="Leo"))
    await prompt.cell()
    assert capsys.readouterr().out == "1 row change waits for `await session.commit()`.\n"


async def test_a_cell_with_a_failed_statement_is_rolled_back(
    db: Database, prompt: Prompt, capsys: pytest.CaptureFixture[str]
) -> None:
    session = prompt.session
    await prompt.cell(create_pet(session, PetCreate(name="Rex")), create_user(session, ADA))
    capsys.readouterr()

    error = await prompt.cell(create_user(session, ADA))

    assert isinstance(error, AlreadyExistsError)
    assert capsys.readouterr().out == "The cell failed: the session is rolled back, and 2 row changes are undone.\n"
    assert await prompt.cell(create_user(session, ADA), session.commit()) is None
    assert await saved(db) == 0


async def test_a_failed_statement_that_the_cell_caught_is_rolled_back_too(
    prompt: Prompt, capsys: pytest.CaptureFixture[str]
) -> None:
    async def caught() -> None:
        with pytest.raises(AlreadyExistsError):
            await create_user(prompt.session, ADA)

    await prompt.cell(create_user(prompt.session, ADA))
    capsys.readouterr()
    await prompt.cell(caught())

    assert capsys.readouterr().out == "A statement failed: the session is rolled back, and 1 row change is undone.\n"


async def test_a_row_that_is_not_valid_is_rolled_back(prompt: Prompt, capsys: pytest.CaptureFixture[str]) -> None:
    prompt.session.add(Pet(name=" "))

    assert isinstance(await prompt.cell(prompt.session.commit()), ValueError)

    assert capsys.readouterr().out == "The cell failed: the session is rolled back.\n"
    assert prompt.session.is_active


async def test_a_cell_that_changed_rows_before_it_failed_is_rolled_back(
    db: Database, prompt: Prompt, capsys: pytest.CaptureFixture[str]
) -> None:
    session = prompt.session

    await prompt.cell(create_pet(session, PetCreate(name="Rex")), get_pet(session, 10**9))

    assert capsys.readouterr().out == "The cell failed: the session is rolled back, and 1 row change is undone.\n"
    await prompt.cell(session.commit())
    assert await saved(db) == 0


async def test_a_cell_that_failed_and_changed_nothing_keeps_what_earlier_cells_changed(
    db: Database, prompt: Prompt, capsys: pytest.CaptureFixture[str]
) -> None:
    session = prompt.session
    await prompt.cell(create_pet(session, PetCreate(name="Rex")))
    capsys.readouterr()

    assert isinstance(await prompt.cell(get_pet(session, 10**9)), PetNotFoundError)

    assert capsys.readouterr().out == "1 row change waits for `await session.commit()`.\n"
    await commit(prompt)
    assert await saved(db) == 1


async def test_a_cell_that_read_and_failed_ends_its_transaction_without_a_word(
    prompt: Prompt, capsys: pytest.CaptureFixture[str]
) -> None:
    await prompt.cell(get_pet(prompt.session, 10**9))

    assert (capsys.readouterr().out, prompt.session.in_transaction()) == ("", False)


async def test_a_transaction_that_the_user_began_is_the_users(
    prompt: Prompt, capsys: pytest.CaptureFixture[str]
) -> None:
    session = prompt.session
    async with session.begin():
        await prompt.cell(count_pets(session))
        assert session.in_transaction()
        await prompt.cell(create_pet(session, PetCreate(name="Rex")))

    assert capsys.readouterr().out == "1 row change waits for `await session.commit()`.\n"


async def test_a_savepoint_that_the_user_began_is_the_users(prompt: Prompt) -> None:
    session = prompt.session
    savepoint = await session.begin_nested()
    await prompt.cell(create_user(session, ADA), create_user(session, ADA))

    await savepoint.rollback()

    assert await prompt.cell(create_user(session, ADA)) is None
    await commit(prompt)


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
async def test_a_row_that_was_locked_stays_locked_for_the_next_cell(prompt: Prompt) -> None:
    await prompt.cell(prompt.session.exec(select(Pet).where(col(Pet.id) == 1).with_for_update()))

    assert prompt.session.in_transaction()

    await prompt.cell(get_pet(prompt.session, 10**9))
    assert not prompt.session.in_transaction()


async def test_a_task_that_uses_the_session_is_not_disturbed(prompt: Prompt) -> None:
    session = prompt.session
    has_begun, may_go_on = asyncio.Event(), asyncio.Event()

    async def background() -> int:
        await count_pets(session)
        has_begun.set()
        await may_go_on.wait()
        return await count_pets(session)

    task = asyncio.create_task(background())
    await has_begun.wait()
    await prompt.cell()
    assert session.in_transaction()
    may_go_on.set()
    assert await task == 0
    await prompt.cell()
    assert not session.in_transaction()


async def test_the_next_cell_waits_until_the_transaction_of_the_last_one_has_ended(prompt: Prompt) -> None:
    session = prompt.session
    for _ in range(20):
        prompt.before_cell()
        await asyncio.ensure_future(count_pets(session))
        prompt.after_cell(ended())
        await asyncio.sleep(0)

        prompt.before_cell()
        assert await count_pets(session) == 0
        prompt.after_cell(ended())
        await session.commit()


async def test_what_the_next_cell_adds_meanwhile_is_not_committed(
    db: Database, prompt: Prompt, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("at once", "a little later"):
        prompt.before_cell()
        await asyncio.ensure_future(count_pets(prompt.session))
        prompt.after_cell(ended())
        if name == "a little later":
            await asyncio.sleep(0)
        prompt.session.add(Pet(name=name))
        await prompt.cell()
        assert capsys.readouterr().out == "1 row change waits for `await session.commit()`.\n"
        assert await saved(db) == 0
        await prompt.session.close()


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
async def test_a_lost_connection_is_replaced_in_the_next_cell(db: Database, prompt: Prompt) -> None:
    await prompt.session.exec(text("SELECT 1"))
    own = "pg_backend_pid()" if db.engine.dialect.name == "postgresql" else "connection_id()"
    [number] = await prompt.session.exec(text(f"SELECT {own}"))
    kill = "SELECT pg_terminate_backend({})" if db.engine.dialect.name == "postgresql" else "KILL {}"
    async with db.engine.connect() as other:
        await other.exec_driver_sql(kill.format(number[0]))

    await prompt.cell()

    assert await prompt.cell(count_pets(prompt.session)) is None


async def test_an_interrupted_cell_of_a_notebook_has_no_result(
    prompt: Prompt, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt.before_cell()
    prompt.session.add(User(name="Ada"))
    await asyncio.ensure_future(prompt.session.flush())
    prompt.after_cell(None)
    await prompt.session.commit()

    assert capsys.readouterr().out == "The cell failed: the session is rolled back, and 1 row change is undone.\n"


# IPython compiles the last line of a cell when the lines before it have run: an interrupt then is "before" the cell.
@pytest.mark.parametrize("seen", ["error_in_exec", "error_before_exec"])
def test_in_a_terminal_an_interrupted_cell_does_not_go_on(
    migrated_url: URL, loop: asyncio.AbstractEventLoop, capsys: pytest.CaptureFixture[str], seen: str
) -> None:
    db = Database(migrated_url)
    prompt = PromptSession(db.engine)

    async def cell() -> None:
        await create_pet(prompt.session, PetCreate(name="Rex"))
        loop.call_soon(os.kill, os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.2)
        await prompt.session.commit()

    prompt.before_cell()
    task = loop.create_task(cell())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    prompt.after_cell(ended(KeyboardInterrupt(), seen))

    assert task.cancelled()
    assert capsys.readouterr().out == "The cell failed: the session is rolled back, and 1 row change is undone.\n"
    assert loop.run_until_complete(saved(db)) == 0
    loop.run_until_complete(prompt.session.close())
    loop.run_until_complete(db.dispose())


def test_in_a_terminal_the_end_of_a_transaction_can_be_interrupted(
    migrated_url: URL, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = Database(migrated_url)
    prompt = PromptSession(db.engine)
    loop.run_until_complete(count_pets(prompt.session))

    async def slow_commit() -> None:
        loop.call_soon(os.kill, os.getpid(), signal.SIGINT)
        await asyncio.sleep(30)

    with monkeypatch.context() as patch:
        patch.setattr(prompt.session, "commit", slow_commit)
        prompt.after_cell(ended())

    assert loop.run_until_complete(count_pets(prompt.session)) == 0
    loop.run_until_complete(prompt.session.close())
    loop.run_until_complete(db.dispose())
