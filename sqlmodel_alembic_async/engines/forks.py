"""Handle fork(): a child process must not use or close the connections of its parent."""

import os
from typing import Protocol
from weakref import WeakSet


class Pool(Protocol):
    """A pool with callbacks for fork()."""

    def close_idle_before_fork(self) -> None:
        """Close the idle connections that a child process must not inherit."""

    def reset_after_fork(self) -> None:
        """Drop all connections, in the child process."""


pools: WeakSet[Pool] = WeakSet()
inherited: list[object] = []  # The parent's connections: garbage collection in the child would close them.


def _before() -> None:
    for pool in list(pools):
        pool.close_idle_before_fork()


def _after_in_child() -> None:
    for pool in list(pools):
        pool.reset_after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(before=_before, after_in_child=_after_in_child)
