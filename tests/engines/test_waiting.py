"""Waiting that a cancellation does not cut short."""

import asyncio

import pytest

from sqlmodel_alembic_async.engines.waiting import until_done


async def test_waiting_until_something_is_done_is_not_cut_short_by_any_number_of_cancellations() -> None:
    done = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(until_done(done))

    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    done.set_result(None)

    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_waiting_for_what_is_done_takes_no_time_and_tells_of_no_cancellation() -> None:
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, done.set_result, None)

    await until_done(done)
    await until_done(done)


async def test_what_fails_tells_that_to_who_asks_for_its_result_and_not_to_who_waits() -> None:
    failing = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(failing.set_exception, KeyError("mine"))

    await until_done(failing)

    with pytest.raises(KeyError, match="mine"):
        failing.result()
