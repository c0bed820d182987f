"""The queue of a pool: in the order of arrival."""

import asyncio

import pytest
from sqlalchemy.util import greenlet_spawn
from sqlalchemy.util.queue import Empty, Full

from sqlmodel_alembic_async.engines.fair_queue import FairQueue

from ..stress.measures import becomes_true


async def wait(queue: FairQueue[int], *, seconds: float | None = None) -> "asyncio.Task[int]":
    """Return a task that waits in the queue."""
    before = len(queue._waiting)
    task = asyncio.create_task(greenlet_spawn(queue.get, True, seconds))
    assert await becomes_true(lambda: len(queue._waiting) > before)
    return task


async def test_who_comes_first_is_served_first() -> None:
    queue: FairQueue[int] = FairQueue(3)
    waiting = [await wait(queue) for _ in range(3)]

    for item in range(3):
        queue.put(item)

    assert await asyncio.gather(*waiting) == [0, 1, 2]
    assert queue.empty()


async def test_a_newcomer_does_not_overtake() -> None:
    queue: FairQueue[int] = FairQueue(1)
    first = await wait(queue)

    queue.put(1)
    with pytest.raises(Empty):
        queue.get(False)
    second = await wait(queue)
    queue.put(2)

    assert await asyncio.gather(first, second) == [1, 2]


async def test_who_is_cancelled_is_passed_over() -> None:
    queue: FairQueue[int] = FairQueue(1)
    first, second = await wait(queue), await wait(queue)

    first.cancel()
    queue.put(1)

    assert await second == 1
    assert first.cancelled()


async def test_what_a_cancelled_one_was_handed_goes_to_the_next() -> None:
    queue: FairQueue[int] = FairQueue(1)
    first, second = await wait(queue), await wait(queue)

    queue.put(1)
    first.cancel()

    assert await second == 1
    assert first.cancelled()


async def test_what_a_cancelled_one_was_handed_is_kept_where_nobody_waits() -> None:
    queue: FairQueue[int] = FairQueue(1)
    only = await wait(queue)

    queue.put(1)
    only.cancel()
    await asyncio.wait([only])

    assert only.cancelled()
    assert queue.get(False) == 1


@pytest.mark.parametrize("lifo", [False, True])
async def test_what_a_cancelled_one_was_handed_is_kept_where_the_queue_is_full_by_then(lifo: bool) -> None:
    queue: FairQueue[str] = FairQueue(1, use_lifo=lifo)
    only = asyncio.create_task(greenlet_spawn(queue.get, True, None))
    assert await becomes_true(lambda: len(queue._waiting) > 0)

    queue.put_nowait("first")
    queue.put_nowait("second")
    only.cancel()
    await asyncio.wait([only])

    assert only.cancelled()
    assert [queue.get(False), queue.get(False)] == ["first", "second"]


async def test_who_waits_too_long_gets_nothing() -> None:
    queue: FairQueue[int] = FairQueue(1)
    waiting = await wait(queue, seconds=0.01)

    with pytest.raises(Empty):
        await waiting

    queue.put(1)
    assert queue.qsize() == 1


@pytest.mark.parametrize(("lifo", "order"), [(False, [0, 1, 2]), (True, [2, 1, 0])])
async def test_items_are_given_oldest_or_newest_first(lifo: bool, order: list[int]) -> None:
    queue: FairQueue[int] = FairQueue(3, use_lifo=lifo)

    for item in range(3):
        queue.put(item)

    assert [queue.get() for _ in range(3)] == order


async def test_a_queue_knows_what_it_holds() -> None:
    queue: FairQueue[int] = FairQueue(2)
    assert (queue.empty(), queue.full(), queue.qsize()) == (True, False, 0)

    queue.put(1)
    assert (queue.empty(), queue.full(), queue.qsize()) == (False, False, 1)

    queue.put(2)
    assert (queue.empty(), queue.full(), queue.qsize()) == (False, True, 2)
    with pytest.raises(Full):
        queue.put(3)


async def test_a_queue_without_a_size_is_never_full() -> None:
    queue: FairQueue[int] = FairQueue()

    for item in range(100):
        queue.put(item)

    assert not queue.full()


async def test_who_is_ended_without_a_cancellation_is_passed_over() -> None:
    queue: FairQueue[int] = FairQueue(1)
    first = queue._wait(None)
    first.send(None)

    first.close()  # As the garbage collector does with a task that is left behind.
    queue.put(1)

    assert queue.get(False) == 1
