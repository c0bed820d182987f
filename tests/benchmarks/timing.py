"""Times: interleaved rounds, many calls in turn, and 50 tasks at once."""

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from time import perf_counter
from typing import Any, TypeVar

Result = TypeVar("Result")

_SLOW = 4.0  # Seconds: what takes longer in one round is not asked again in the next ones.


def interleaved(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Give every name in every round, each round beginning with another one."""
    for number in range(rounds):
        first = number % len(names)
        yield from (*names[first:], *names[:first])


async def timed(
    operation: Callable[..., Awaitable[Result]], arguments: Sequence[tuple[Any, ...]], *, budget: float = 2.0
) -> tuple[list[Result], float]:
    """Call the operation with each of the arguments, as far as the seconds last; return results and seconds a call."""
    results = []
    gc.collect()
    started = perf_counter()
    for values in arguments:
        results.append(await operation(*values))
        if perf_counter() - started > budget:
            break
    return results, (perf_counter() - started) / len(results)


class Slow:
    """Remembers who is too slow to be asked in every round."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def skip(self, name: str) -> bool:
        return name in self._names

    def note(self, name: str, seconds: float) -> None:
        if seconds > _SLOW:
            self._names.add(name)


async def concurrently(contender: Any, tasks: int, calls: int, pets: int) -> tuple[float, list[float], list[str]]:
    """Let tasks get (70 %), update (20 %) and list (10 %) pets; return seconds a call, all latencies and errors."""
    latencies: list[float] = []
    errors: list[str] = []

    async def task(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(calls):
            kind = chance.random()
            pet_id = chance.randint(1, pets)
            started = perf_counter()
            try:
                if kind < 0.7:
                    await contender.get(pet_id)
                elif kind < 0.9:
                    await contender.update(pet_id, f"color {chance.randint(1, 1000)}")
                else:
                    await contender.page(None)
            except Exception as error:
                # What fails under load is counted, whatever it is.
                errors.append(type(error).__name__)
            else:
                latencies.append(perf_counter() - started)

    gc.collect()
    started = perf_counter()
    await asyncio.gather(*map(task, range(tasks)))
    return (perf_counter() - started) / max(len(latencies), 1), latencies, errors
