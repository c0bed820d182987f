"""Handle fork(): a child process must not use or close the connections of its parent."""

import os
from typing import Any, Protocol
from weakref import WeakSet


class Pool(Protocol):
    """A pool with callbacks for fork()."""

    def close_idle_before_fork(self) -> None:
        """Close the idle connections that a child process must not inherit."""

    def reset_after_fork(self) -> None:
        """Drop all connections, in the child process."""


pools: WeakSet[Any] = WeakSet()  # The items are of the type Pool.
inherited: list[object] = []  # The parent's connections: garbage collection in the child would close them.


def _before() -> None:
    for pool in list(pools):
        pool.close_idle_before_fork()


def _after_in_child() -> None:
    for pool in list(pools):
        pool.reset_after_fork()


# Only Unix has fork() and register_at_fork().
getattr(os, "register_at_fork", dict)(before=_before, after_in_child=_after_in_child)
