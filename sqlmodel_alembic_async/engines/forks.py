"""What happens to connections where a process forks: the child begins without any."""

import os
from typing import Any, Protocol
from weakref import WeakSet


class Pool(Protocol):
    """A pool that is told of forks."""

    def close_idle_before_fork(self) -> None:
        """Close idle connections that a child process must not inherit."""

    def start_anew_after_fork(self) -> None:
        """Forget all connections, in the child process."""


pools: WeakSet[Any] = WeakSet()  # Of Pool.
inherited: list[object] = []  # What a child process must not close, and so must not collect as garbage.


def _before() -> None:
    for pool in list(pools):
        pool.close_idle_before_fork()


def _after_in_child() -> None:
    for pool in list(pools):
        pool.start_anew_after_fork()


# Only Unix has it, as it has fork().
getattr(os, "register_at_fork", dict)(before=_before, after_in_child=_after_in_child)
