"""The IPython extension: `%load_ext sqlmodel_alembic_async`, or `ipython --ext sqlmodel_alembic_async`."""

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
    """Put the public names and an open session into the namespace, and say where the data is."""
    package = importlib.import_module(__package__)
    shell.push({name: getattr(package, name) for name in package.__all__ if not name.startswith("_")})
    session = database.session()
    shell.push({"select": select, "session": session})
    atexit.register(_close, session)
    # IPython may or may not run an event loop in this thread: another one has none.
    with ThreadPoolExecutor(1) as thread:
        state = thread.submit(lambda: asyncio.run(_state())).result()
    print(f"sqlmodel_alembic_async {package.__version__} on {database.shown_url}", state, _HINTS, sep="\n")  # noqa: T201  # its output


def _close(session: AsyncSession) -> None:
    # The loop that IPython runs its cells in: the connections belong to it. A notebook's own loop has ended by now,
    # and can not even be asked to close them.
    from IPython.core.async_helpers import get_asyncio_loop

    loop = get_asyncio_loop()  # type: ignore[no-untyped-call]  # IPython's own
    with suppress(RuntimeError, SQLAlchemyError):
        loop.run_until_complete(session.close())
        loop.run_until_complete(database.dispose())


async def _state() -> str:
    try:
        # Not the default database's own connections: those belong to IPython's event loop.
        async with Database(database.url) as probe:
            revision = await migrations.current(database=probe)
    except DatabaseError as error:
        return f"The database can not be asked: {error}."
    if revision == migrations.head():
        return "The tables are up to date."
    return "Migrations are pending: await migrations.upgrade()"
