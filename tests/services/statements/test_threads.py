"""Work on a thread of its own, and who hears what became of it."""

import asyncio
import subprocess
import sys
import threading

import pytest

from sqlmodel_alembic_async.services.statements.threads import finish_in_thread, run_in_thread

PATIENCE = 10.0  # Seconds after which a test that hangs is ended.


def test_a_thread_that_outlives_its_loop_ends_in_silence() -> None:
    released = threading.Event()
    before = threading.active_count()

    async def leave() -> None:
        run_in_thread(lambda: released.wait(PATIENCE))

    asyncio.run(leave())
    released.set()
    for thread in threading.enumerate():
        if thread.name == "sqlmodel_alembic_async":
            thread.join(PATIENCE)

    assert threading.active_count() <= before


async def test_work_is_done_on_a_thread_of_its_own_and_its_result_is_told() -> None:
    names = [await run_in_thread(lambda: threading.current_thread().name) for _ in range(2)]

    assert names == ["sqlmodel_alembic_async"] * 2


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt("mine")])
async def test_an_error_of_the_work_is_told_to_who_waits(error: BaseException) -> None:
    def fail() -> None:
        raise error

    future = run_in_thread(fail)
    await asyncio.wait([future], timeout=PATIENCE)

    assert future.exception() is error


async def test_work_goes_on_after_its_future_was_cancelled_and_its_result_hurts_nobody() -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    released, ended = threading.Event(), threading.Event()

    def work() -> None:
        released.wait(PATIENCE)
        ended.set()

    future = run_in_thread(work)
    future.cancel()
    released.set()

    assert await asyncio.to_thread(ended.wait, PATIENCE)
    for thread in threading.enumerate():
        if thread.name == "sqlmodel_alembic_async":
            await asyncio.to_thread(thread.join, PATIENCE)
    await asyncio.sleep(0)
    assert future.cancelled()
    assert complaints == []


def test_a_process_does_not_wait_for_the_thread() -> None:
    program = f"""
import asyncio, threading
from sqlmodel_alembic_async.services.statements.threads import finish_in_thread, run_in_thread

async def main():
    run_in_thread(lambda: threading.Event().wait({2 * PATIENCE}))

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=PATIENCE
    )

    assert (done.returncode, done.stderr) == (0, "")


async def test_work_that_does_not_notice_the_first_stop_is_stopped_again() -> None:
    stops, began = threading.Semaphore(0), threading.Event()

    def work() -> None:
        began.set()
        for _ in range(3):
            assert stops.acquire(timeout=PATIENCE)

    task = asyncio.create_task(finish_in_thread(work, stops.release))
    await asyncio.to_thread(began.wait)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=PATIENCE / 2)

    assert done == {task}
    assert task.cancelled()
