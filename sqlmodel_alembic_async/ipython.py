"""The IPython extension: load it with `%load_ext` or with `ipython --ext sqlmodel_alembic_async`."""

import asyncio
import atexit
import functools
import importlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import select

from . import migrations
from .databases import Database, database
from .prompt_session import PromptSession, event_loop, row_changes
from .start_errors import CONNECT_ERRORS, why_not_connected

_HINTS = """\
Try:  await create_pet(session, PetCreate(name="Rex", species="dog"))
      await list_pets(session, species="dog")
      await session.commit()
      database.echo = True  # shows the SQL statements"""

# The session of each shell, and what closes it when the process ends.
_open: WeakKeyDictionary[Any, tuple[PromptSession, Callable[[], None]]] = WeakKeyDictionary()


def load_ipython_extension(shell: Any) -> None:
    """Add the public names, `select` and an open `session` to the user's namespace; print the database's URL and state.

    IPython calls it with its shell. After a cell that only read, the transaction of `session` ends. After a cell that
    failed, it is rolled back. Row changes wait for a commit. When IPython exits, they are not committed: it tells how
    many there are, and closes the session.

    If the database cannot be used, because of its URL or its driver, it only prints the reason.
    """
    try:
        engine = database.engine
    except CONNECT_ERRORS as error:
        print(f"sqlmodel_alembic_async is not loaded: {why_not_connected(error)}")  # noqa: T201  # for the user
        return
    if shell not in _open:
        prompt = PromptSession(engine)
        _open[shell] = prompt, functools.partial(_leave, prompt)
        shell.events.register("pre_run_cell", prompt.before_cell)
        shell.events.register("post_run_cell", prompt.after_cell)
        atexit.register(_open[shell][1])
    shell.push(_names(_open[shell][0]))
    # asyncio.run() needs a thread without a running event loop. IPython may run one in this thread.
    with ThreadPoolExecutor(1) as thread:
        state = thread.submit(lambda: asyncio.run(_migration_state())).result()
    version = importlib.import_module(__package__).__version__
    print(f"sqlmodel_alembic_async {version} on {database.shown_url}", state, _HINTS, sep="\n")  # noqa: T201  # a greeting for the user


def unload_ipython_extension(shell: Any) -> None:
    """Take the names back, and close the session; row changes that are not committed are lost, which it tells.

    IPython's `%unload_ext` and `%reload_ext` call it with the shell.
    """
    if shell not in _open:
        return
    prompt, leave = _open.pop(shell)
    shell.events.unregister("pre_run_cell", prompt.before_cell)
    shell.events.unregister("post_run_cell", prompt.after_cell)
    atexit.unregister(leave)
    shell.drop_by_id(_names(prompt))
    _warn_of_lost_changes(prompt)
    if (loop := event_loop()).is_running():
        prompt.closing = loop.create_task(_close(prompt))
    else:
        loop.run_until_complete(_close(prompt))


def _names(prompt: PromptSession) -> dict[str, Any]:
    package = importlib.import_module(__package__)
    names = {name: getattr(package, name) for name in package.__all__ if not name.startswith("_")}
    return names | {"select": select, "session": prompt.session}


def _leave(prompt: PromptSession) -> None:
    _warn_of_lost_changes(prompt)
    # In a notebook, the event loop has ended by now, and the connections cannot be closed any more.
    with suppress(RuntimeError, SQLAlchemyError):
        event_loop().run_until_complete(_close(prompt))


async def _close(prompt: PromptSession) -> None:
    await prompt.session.close()
    await database.dispose()


def _warn_of_lost_changes(prompt: PromptSession) -> None:
    if count := prompt.count():
        print(f"Not committed: {row_changes(count, 'is', 'are')} lost.", file=sys.stderr)  # noqa: T201  # for the user


async def _migration_state() -> str:
    try:
        # A separate Database: the connections of the default one must be opened in IPython's event loop.
        async with Database(database.url) as other:
            revision = await migrations.current(database=other)
    except CONNECT_ERRORS as error:
        return f"The state of the migrations is unknown: {why_not_connected(error)}."
    if revision == migrations.head():
        return "The tables are up to date."
    return "Migrations are pending: await migrations.upgrade()"
