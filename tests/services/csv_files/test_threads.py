"""Work on a thread of its own, and who hears what became of it."""

import asyncio
import threading

from sqlmodel_alembic_async.services.csv_files.threads import started

PATIENCE = 10.0  # Seconds after which a test that hangs is ended.


def test_a_thread_that_outlives_its_loop_ends_in_silence() -> None:
    released = threading.Event()
    before = threading.active_count()

    async def leave() -> None:
        started(lambda: released.wait(PATIENCE))

    asyncio.run(leave())
    released.set()
    for thread in threading.enumerate():
        if thread.name == "sqlmodel_alembic_async":
            thread.join(PATIENCE)

    assert threading.active_count() <= before
