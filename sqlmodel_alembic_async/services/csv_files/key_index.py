"""What an import must remember of a whole file, in a temporary file of its own: memory does not grow with the rows."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Self

from ...driver_errors import cause_of
from ...errors import StorageError
from .threads import started

_TABLES = """
    CREATE TABLE claim (key TEXT, line INT);
    CREATE TABLE half (key TEXT, owner TEXT, line INT, PRIMARY KEY (key, owner)) WITHOUT ROWID;
    CREATE TABLE known (owner TEXT PRIMARY KEY, id INT) WITHOUT ROWID;
    CREATE TABLE seen (pet_id INTEGER PRIMARY KEY, line INT);
    CREATE TABLE said (owner_id INTEGER PRIMARY KEY, owner TEXT);
    CREATE TABLE given_up (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""

_CLAIMED_TWICE = """
    SELECT key, line FROM claim WHERE key IN (SELECT key FROM claim GROUP BY key HAVING count(*) > 1) ORDER BY line
"""
_SAID_IN_TWO_WAYS = """
    SELECT key, owner, line FROM half WHERE key IN (SELECT key FROM half GROUP BY key HAVING count(*) > 1) ORDER BY line
"""

OWNER_KEYS = ("external_ref", "email")

Key = tuple[str, str]  # A unique column, and a value of it.
Contradiction = tuple[str, int, int]  # A field, and two lines that differ in it.

_NOTED_AT_ONCE = 1000  # Keys.
_INTERRUPT_AGAIN = 0.05  # Seconds.


@contextmanager
def temporary_storage() -> Iterator[None]:
    """Raise StorageError where a temporary file can not be written or read."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        message = "the temporary storage is full, or can not be used: TMPDIR names its folder"
        raise StorageError(message) from cause_of(error)


def half(owner: Mapping[str, str]) -> str:
    """Return one text for the cells of an owner."""
    return json.dumps(owner, sort_keys=True)


class Ledger:
    """Knows which keys of pets two rows claim, what one owner's rows say together, and who was dealt with."""

    def __init__(self) -> None:
        # Another thread settles, while this one waits.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self.rows = 0
        self._claims: dict[str, list[int]] = {}
        self._merged: dict[str, dict[str, tuple[str, int]]] = {}  # Each text with the first line that has it.
        self._contradictions: dict[str, Contradiction] = {}
        self._is_any_given_up = False
        self._claimed: list[tuple[str, int]] = []
        self._halves: list[tuple[str, str, int]] = []

    def __enter__(self) -> Self:
        try:
            with temporary_storage():
                self._database.executescript(_TABLES)
                self._database.execute("BEGIN")
        except StorageError:
            self._database.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()

    def claim(self, line: int, pet_keys: Sequence[Key], owner_keys: Sequence[Key], owner: Mapping[str, str]) -> None:
        """Note the keys of a row."""
        self._claimed += ((_text(key), line) for key in pet_keys)
        if owner_keys:
            cells = half(owner)
            self._halves += ((_text(key), cells, line) for key in owner_keys)
        if len(self._claimed) + len(self._halves) >= _NOTED_AT_ONCE:
            self._note()

    def _note(self) -> None:
        with temporary_storage():
            self._database.executemany("INSERT INTO claim VALUES (?, ?)", self._claimed)
            self._database.executemany("INSERT OR IGNORE INTO half VALUES (?, ?, ?)", self._halves)
        self._claimed.clear()
        self._halves.clear()

    async def settle(self) -> None:
        """Find out, after all rows, what contradicts what; on a thread, for it takes seconds to sort a million keys."""
        settled = started(self._settle)
        try:
            await asyncio.shield(settled)
        except asyncio.CancelledError:
            while not settled.done():  # The database must not be closed meanwhile.
                self._database.interrupt()
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([settled], timeout=_INTERRUPT_AGAIN)
            settled.exception()  # What was interrupted has nothing to say.
            raise

    def _settle(self) -> None:
        self._note()
        with temporary_storage():
            for key, line in self._database.execute(_CLAIMED_TWICE):
                self._claims.setdefault(key, []).append(line)
            for key, owner, line in self._database.execute(_SAID_IN_TWO_WAYS):
                self._merge(key, owner, line)

    def _merge(self, key: str, owner: str, line: int) -> None:
        merged = self._merged.setdefault(key, {})
        for name, text in json.loads(owner).items():
            first, first_line = merged.setdefault(name, (text, line))
            if first != text:
                self._contradictions.setdefault(key, (name, first_line, line))

    def other_claim(self, line: int, key: Key) -> int | None:
        """Return another line that claims this key of a pet, or None."""
        return next((other for other in self._claims.get(_text(key), ()) if other != line), None)

    def whole_owner(self, line: int, owner: dict[str, str]) -> tuple[dict[str, str], Contradiction | None]:
        """Return what all rows of one owner say together, and where they contradict each other."""
        whole = {name: (text, line) for name, text in owner.items()}
        contradiction = None
        for name in OWNER_KEYS * 2:  # Each key may lead to the other one.
            key = _text((name, whole[name][0])) if name in whole else ""
            contradiction = contradiction or self._contradictions.get(key)
            for field, (text, first_line) in self._merged.get(key, {}).items():
                known, known_line = whole.setdefault(field, (text, first_line))
                if known != text and contradiction is None:
                    contradiction = (field, min(known_line, first_line), max(known_line, first_line))
        return {name: text for name, (text, _) in whole.items()}, contradiction

    def contradicted(self, owner_id: int, owner: dict[str, str]) -> list[str]:
        """Note what is said of a stored owner, and return the fields of which something else was said before."""
        said = self._execute("SELECT owner FROM said WHERE owner_id = ?", owner_id).fetchone()
        before = json.loads(said[0]) if said else {}
        if differing := [name for name, text in owner.items() if before.get(name, text) != text]:
            return differing
        self._execute("INSERT OR REPLACE INTO said VALUES (?, ?)", owner_id, half(before | owner))
        return []

    def give_up(self, key: Key) -> None:
        """Note that a stored row has this key no more."""
        self._is_any_given_up = True
        self._execute("INSERT OR IGNORE INTO given_up VALUES (?)", _text(key))

    def is_given_up(self, key: Key) -> bool:
        """Tell whether a stored row had this key before the import."""
        query = "SELECT 1 FROM given_up WHERE key = ?"
        return self._is_any_given_up and self._execute(query, _text(key)).fetchone() is not None

    def remember_owner(self, owner: str, user_id: int) -> None:
        """Note who an owner without a key is."""
        self._execute("INSERT OR IGNORE INTO known VALUES (?, ?)", owner, user_id)

    def known_owner(self, owner: str) -> int | None:
        """Return who an owner without a key is, or None."""
        found = self._execute("SELECT id FROM known WHERE owner = ?", owner).fetchone()
        return found[0] if found else None

    def first_line_of(self, pet_id: int, line: int) -> int:
        """Note that a row is about this pet, and return the first line that was."""
        if self._execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", pet_id, line).rowcount:
            return line
        return int(self._execute("SELECT line FROM seen WHERE pet_id = ?", pet_id).fetchone()[0])

    def _execute(self, statement: str, *parameters: str | int) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, parameters)
        except sqlite3.Error as error:
            with temporary_storage():
                raise error


def _text(key: Key) -> str:
    return "=".join(key)
