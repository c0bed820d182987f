"""The IPython extension: load it with `%load_ext` or with `ipython --ext sqlmodel_alembic_async`."""

import asyncio
import atexit
import importlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import select

from . import migrations
from .databases import AsyncSession, Database, database
from .errors import DatabaseError

_HINTS = """\
Try:  await create_pet(session, PetCreate(name="Rex", species="dog"))
      await list_pets(session, species="dog")
      await session.commit()"""


def load_ipython_extension(shell: Any) -> None:
    """Add the public names, `select` and an open `session` to the user's namespace; print the database's URL and state.

    IPython calls it with its shell. The session is closed when IPython exits.

    Raises:
        ValueError: DATABASE_URL is not a database URL.
        ModuleNotFoundError: The database's driver is not installed.

    """
    package = importlib.import_module(__package__)
    shell.push({name: getattr(package, name) for name in package.__all__ if not name.startswith("_")})
    session = database.session()
    shell.push({"select": select, "session": session})
    atexit.register(_close, session)
    # asyncio.run() needs a thread without a running event loop. IPython may run one in this thread.
    with ThreadPoolExecutor(1) as thread:
        state = thread.submit(lambda: asyncio.run(_migration_state())).result()
    print(f"sqlmodel_alembic_async {package.__version__} on {database.shown_url}", state, _HINTS, sep="\n")  # noqa: T201  # a greeting for the user


def _close(session: AsyncSession) -> None:
    # Connections must be closed in the event loop that opened them, which is the one that runs IPython's cells. In a
    # notebook, that loop has ended by now, and the connections cannot be closed any more.
    from IPython.core.async_helpers import get_asyncio_loop

    loop = get_asyncio_loop()  # type: ignore[no-untyped-call]  # IPython has no types
    with suppress(RuntimeError, SQLAlchemyError):
        loop.run_until_complete(session.close())
        loop.run_until_complete(database.dispose())


async def _migration_state() -> str:
    try:
        # A separate Database: the connections of the default one must be opened in IPython's event loop.
        async with Database(database.url) as other:
            revision = await migrations.current(database=other)
    except DatabaseError as error:
        return f"The state of the migrations is unknown: {error}."
    if revision == migrations.head():
        return "The tables are up to date."
    return "Migrations are pending: await migrations.upgrade()"
