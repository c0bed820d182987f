"""Refuse SQLite files that the parent process had open when this process was forked."""

import os
from weakref import WeakKeyDictionary

import aiosqlite

from .. import forks

_files: WeakKeyDictionary[aiosqlite.Connection, str] = WeakKeyDictionary()
_inherited: set[str] = set()


def register(connection: aiosqlite.Connection, database: str) -> None:
    """Record which file a connection opens."""
    _files[connection] = database


def refuse_inherited(database: str) -> None:
    """Raise RuntimeError if the parent process had this file open when this process was forked."""
    if os.path.realpath(database) in _inherited:
        raise RuntimeError(
            "this process was forked while its parent had this SQLite file open, and SQLite's locks do not survive a"
            " fork: fork while no session is open, or use the 'spawn' start method of multiprocessing"
        )


def _after_fork_in_child() -> None:
    """Note the files that the parent has open.

    SQLite assumes that the child holds the locks of the parent's connections. A new connection would take no locks, and
    other processes could change what it reads. It is also not safe to close the parent's connections in the child.
    """
    inherited = {connection: file for connection, file in _files.items() if connection._connection is not None}
    _inherited.update(map(os.path.realpath, inherited.values()))
    forks.inherited.extend(inherited)


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_after_fork_in_child)
