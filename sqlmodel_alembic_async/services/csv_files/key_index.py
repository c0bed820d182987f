"""The keys of a whole file, and what the import knows of its rows, in a temporary SQLite database.

Memory does not grow with the number of rows.
"""

import asyncio
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Self

from ...driver_errors import cause_of
from ...errors import StorageError
from .threads import run_in_thread

_TABLES = """
    CREATE TABLE pet_key (key TEXT, line INT);
    CREATE TABLE owner_key (key TEXT, owner TEXT, line INT, PRIMARY KEY (key, owner)) WITHOUT ROWID;
    CREATE TABLE keyless_owner (owner TEXT PRIMARY KEY, id INT) WITHOUT ROWID;
    CREATE TABLE matched_pet (pet_id INTEGER PRIMARY KEY, line INT);
    CREATE TABLE matched_owner (owner_id INTEGER PRIMARY KEY, owner TEXT);
    CREATE TABLE replaced_key (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""

_REPEATED_PET_KEYS = """
    SELECT key, line FROM pet_key
    WHERE key IN (SELECT key FROM pet_key GROUP BY key HAVING count(*) > 1) ORDER BY line
"""
_REPEATED_OWNER_KEYS = """
    SELECT key, owner, line FROM owner_key
    WHERE key IN (SELECT key FROM owner_key GROUP BY key HAVING count(*) > 1) ORDER BY line
"""

OWNER_KEYS = ("external_ref", "email")

Key = tuple[str, str]  # The name of a unique column, and a value of it.
Contradiction = tuple[str, int, int]  # A field, and two lines that give different values for it.

_BUFFER_SIZE = 1000  # Keys that are inserted together.
_INTERRUPT_INTERVAL = 0.05  # Seconds.


@contextmanager
def temporary_storage_errors() -> Iterator[None]:
    """Raise StorageError if a temporary file cannot be written or read."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        message = "the temporary storage is full or cannot be used: free space, or set TMPDIR to another folder"
        raise StorageError(message) from cause_of(error)


def owner_text(values: Mapping[str, str]) -> str:
    """Return the values of an owner as one text; equal values give equal texts."""
    return json.dumps(values, sort_keys=True)


class KeyIndex:
    """The keys of all rows of a file. First add every row, then build the index, then query it."""

    def __init__(self) -> None:
        # build() uses the connection on another thread, while this thread waits.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self.row_count = 0
        self._repeated_pet_keys: dict[str, list[int]] = {}  # The lines of each key.
        # For each owner key: the values of all its rows, each with the first line that gives it.
        self._merged_owners: dict[str, dict[str, tuple[str, int]]] = {}
        self._contradictions: dict[str, Contradiction] = {}
        self._has_replaced_keys = False
        self._new_pet_keys: list[tuple[str, int]] = []
        self._new_owner_keys: list[tuple[str, str, int]] = []

    def __enter__(self) -> Self:
        try:
            with temporary_storage_errors():
                self._database.executescript(_TABLES)
                self._database.execute("BEGIN")
        except StorageError:
            self._database.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()

    def add_row(self, line: int, pet_keys: Sequence[Key], owner_keys: Sequence[Key], owner: Mapping[str, str]) -> None:
        """Add the keys of a row and the values of its owner."""
        self._new_pet_keys += ((_key_text(key), line) for key in pet_keys)
        if owner_keys:
            text = owner_text(owner)
            self._new_owner_keys += ((_key_text(key), text, line) for key in owner_keys)
        if len(self._new_pet_keys) + len(self._new_owner_keys) >= _BUFFER_SIZE:
            self._insert_new_keys()

    def _insert_new_keys(self) -> None:
        with temporary_storage_errors():
            self._database.executemany("INSERT INTO pet_key VALUES (?, ?)", self._new_pet_keys)
            self._database.executemany("INSERT OR IGNORE INTO owner_key VALUES (?, ?, ?)", self._new_owner_keys)
        self._new_pet_keys.clear()
        self._new_owner_keys.clear()

    async def build(self) -> None:
        """Find the keys that several rows have; on a thread, because a million keys take seconds to sort."""
        built = run_in_thread(self._build)
        try:
            await asyncio.shield(built)
        except asyncio.CancelledError:
            while not built.done():  # The database must stay open until the thread ends.
                self._database.interrupt()
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([built], timeout=_INTERRUPT_INTERVAL)
            built.exception()  # asyncio logs an exception that is never retrieved.
            raise

    def _build(self) -> None:
        self._insert_new_keys()
        with temporary_storage_errors():
            for key, line in self._database.execute(_REPEATED_PET_KEYS):
                self._repeated_pet_keys.setdefault(key, []).append(line)
            for key, owner, line in self._database.execute(_REPEATED_OWNER_KEYS):
                self._merge(key, owner, line)

    def _merge(self, key: str, owner: str, line: int) -> None:
        merged = self._merged_owners.setdefault(key, {})
        for name, value in json.loads(owner).items():
            first_value, first_line = merged.setdefault(name, (value, line))
            if first_value != value:
                self._contradictions.setdefault(key, (name, first_line, line))

    def other_line_with(self, key: Key, line: int) -> int | None:
        """Return another line that has this key of a pet, or None."""
        return next((other for other in self._repeated_pet_keys.get(_key_text(key), ()) if other != line), None)

    def merged_owner(self, line: int, owner: dict[str, str]) -> tuple[dict[str, str], Contradiction | None]:
        """Return the values that all rows of this owner give together, and a contradiction between them, if any."""
        merged = {name: (value, line) for name, value in owner.items()}
        contradiction = None
        for name in OWNER_KEYS * 2:  # Twice: the rows of one key may add the other key.
            key = _key_text((name, merged[name][0])) if name in merged else ""
            contradiction = contradiction or self._contradictions.get(key)
            for field, (value, first_line) in self._merged_owners.get(key, {}).items():
                known, known_line = merged.setdefault(field, (value, first_line))
                if known != value and contradiction is None:
                    contradiction = (field, min(known_line, first_line), max(known_line, first_line))
        return {name: value for name, (value, _) in merged.items()}, contradiction

    def add_owner_values(self, owner_id: int, values: dict[str, str]) -> list[str]:
        """Add the values that a row gives for a stored owner, or return the fields that differ from earlier rows."""
        found = self._execute("SELECT owner FROM matched_owner WHERE owner_id = ?", owner_id).fetchone()
        earlier = json.loads(found[0]) if found else {}
        if differing := [name for name, value in values.items() if earlier.get(name, value) != value]:
            return differing
        self._execute("INSERT OR REPLACE INTO matched_owner VALUES (?, ?)", owner_id, owner_text(earlier | values))
        return []

    def add_replaced_key(self, key: Key) -> None:
        """Add a key that the import replaces in a stored row."""
        self._has_replaced_keys = True
        self._execute("INSERT OR IGNORE INTO replaced_key VALUES (?)", _key_text(key))

    def is_replaced(self, key: Key) -> bool:
        """Tell whether a stored row had this key before the import replaced it."""
        query = "SELECT 1 FROM replaced_key WHERE key = ?"
        return self._has_replaced_keys and self._execute(query, _key_text(key)).fetchone() is not None

    def add_keyless_owner(self, owner: str, user_id: int) -> None:
        """Add the id of an owner without a key; `owner` is the owner_text()."""
        self._execute("INSERT OR IGNORE INTO keyless_owner VALUES (?, ?)", owner, user_id)

    def keyless_owner_id(self, owner: str) -> int | None:
        """Return the id of an owner without a key, or None; `owner` is the owner_text()."""
        found = self._execute("SELECT id FROM keyless_owner WHERE owner = ?", owner).fetchone()
        return found[0] if found else None

    def add_matched_pet(self, pet_id: int, line: int) -> int:
        """Add a line that matches this stored pet, and return the first line that does."""
        if self._execute("INSERT OR IGNORE INTO matched_pet VALUES (?, ?)", pet_id, line).rowcount:
            return line
        return int(self._execute("SELECT line FROM matched_pet WHERE pet_id = ?", pet_id).fetchone()[0])

    def _execute(self, statement: str, *parameters: str | int) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, parameters)
        except sqlite3.Error as error:
            with temporary_storage_errors():
                raise error


def _key_text(key: Key) -> str:
    return "=".join(key)
