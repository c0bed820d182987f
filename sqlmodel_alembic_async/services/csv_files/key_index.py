"""The keys of a whole file, and what the import knows of its rows, in a temporary SQLite database.

Memory does not grow with the number of rows.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from typing import Self

from pydantic import ValidationError

from ...driver_errors import cause_of
from ...errors import StorageError
from ...models import UserUpdate
from ..statements.chunks import BATCH_SIZE
from ..statements.threads import finish_in_thread

_TABLES = """
    CREATE TABLE pet_key (key TEXT, line INT);
    CREATE TABLE owner_key (key TEXT, owner TEXT, line INT);
    CREATE TABLE repeated_pet_key (key TEXT, line INT, PRIMARY KEY (key, line)) WITHOUT ROWID;
    CREATE TABLE merged_owner (key TEXT PRIMARY KEY, owner TEXT, contradiction TEXT) WITHOUT ROWID;
    CREATE TABLE keyless_row (owner TEXT, line INT, name TEXT, value TEXT);
    CREATE TABLE keyless_owner_pet (owner TEXT, name TEXT, value TEXT);
    CREATE TABLE keyless_owner (owner TEXT PRIMARY KEY, id INT) WITHOUT ROWID;
    CREATE TABLE matched_pet (pet_id INTEGER PRIMARY KEY, line INT);
    CREATE TABLE matched_owner (owner_id INTEGER PRIMARY KEY, owner TEXT);
    CREATE TABLE replaced_key (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""

_INSERT_REPEATED_PET_KEYS = """
    INSERT INTO repeated_pet_key SELECT key, line FROM pet_key
    WHERE key IN (SELECT key FROM pet_key GROUP BY key HAVING count(*) > 1)
"""
# The lines of a repeated key of a pet are rejected, and must not add anything to other lines.
_REPEATED_OWNER_KEYS = """
    WITH owner_of_key AS MATERIALIZED (
        SELECT key, owner, min(line) AS line FROM owner_key
        WHERE line NOT IN (SELECT line FROM repeated_pet_key) GROUP BY key, owner
    )
    SELECT key, owner, line FROM owner_of_key
    WHERE key IN (SELECT key FROM owner_of_key GROUP BY key HAVING count(*) > 1) ORDER BY key, line
"""
_INSERT_KEYLESS_OWNER_PETS = """
    INSERT INTO keyless_owner_pet SELECT owner, name, value FROM keyless_row
    WHERE name IS NOT NULL AND line NOT IN (SELECT line FROM repeated_pet_key)
    AND owner IN (SELECT owner FROM keyless_row GROUP BY owner HAVING min(line) < max(line)) ORDER BY line
"""

OWNER_KEYS = ("external_ref", "email")

Key = tuple[str, str]  # The name of a unique column, and a value of it.
Contradiction = tuple[str, int, int]  # A field, and two lines that give different values for it.

_BUFFER_SIZE = 1000
_BUFFER_CHARACTERS = 1_000_000  # Of owners; at most so many wait for one more owner.


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
        # Most files need none of these tables, and a query costs as much as the rest of the work on a key.
        self._has_repeated_pet_keys = False
        self._has_merged_owners = False
        self._has_replaced_keys = False
        self._new_pet_keys: list[tuple[str, int]] = []
        self._new_owner_keys: list[tuple[str, str, int]] = []
        self._new_keyless_rows: list[tuple[str, int, str | None, str | None]] = []
        self._new_characters = 0

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
        text = owner_text(owner) if owner else ""
        if owner_keys:
            self._new_owner_keys += ((_key_text(key), text, line) for key in owner_keys)
        elif owner:
            keys: Sequence[tuple[str | None, str | None]] = pet_keys or [(None, None)]
            self._new_keyless_rows += ((text, line, *key) for key in keys)
        self._new_characters += len(text)
        size = len(self._new_pet_keys) + len(self._new_owner_keys) + len(self._new_keyless_rows)
        if size >= _BUFFER_SIZE or self._new_characters >= _BUFFER_CHARACTERS:
            self._insert_new_keys()

    def _insert_new_keys(self) -> None:
        with temporary_storage_errors():
            self._database.executemany("INSERT INTO pet_key VALUES (?, ?)", self._new_pet_keys)
            self._database.executemany("INSERT INTO owner_key VALUES (?, ?, ?)", self._new_owner_keys)
            self._database.executemany("INSERT INTO keyless_row VALUES (?, ?, ?, ?)", self._new_keyless_rows)
        self._new_pet_keys.clear()
        self._new_owner_keys.clear()
        self._new_keyless_rows.clear()
        self._new_characters = 0

    async def build(self) -> None:
        """Find the keys that several rows have; on a thread, because a million keys take seconds to sort."""
        await finish_in_thread(self._build, self._database.interrupt)  # The database must stay open until it ends.

    def _build(self) -> None:
        self._insert_new_keys()
        with temporary_storage_errors():
            self._has_repeated_pet_keys = self._database.execute(_INSERT_REPEATED_PET_KEYS).rowcount > 0
            for key, rows in groupby(self._database.execute(_REPEATED_OWNER_KEYS), itemgetter(0)):
                self._merge(key, ((owner, line) for _, owner, line in rows))
            self._database.execute(_INSERT_KEYLESS_OWNER_PETS)

    def _merge(self, key: str, rows: Iterable[tuple[str, int]]) -> None:
        merged: dict[str, tuple[str, int]] = {}  # By field: a value, and the first line that gives it.
        contradiction: Contradiction | None = None
        for owner, line in rows:
            values = json.loads(owner)
            try:
                UserUpdate.model_validate(values)
            except ValidationError:
                continue  # The row will be rejected, and must not add values to the other rows.
            for name, value in values.items():
                first_value, first_line = merged.setdefault(name, (value, line))
                if first_value != value and contradiction is None:
                    contradiction = (name, first_line, line)
        parameters = (key, json.dumps(merged), json.dumps(contradiction))
        self._database.execute("INSERT INTO merged_owner VALUES (?, ?, ?)", parameters)
        self._has_merged_owners = True

    def other_line_with(self, key: Key, line: int) -> int | None:
        """Return another line that has this key of a pet, or None."""
        if not self._has_repeated_pet_keys:
            return None
        query = "SELECT min(line) FROM repeated_pet_key WHERE key = ? AND line <> ?"
        other: int | None = self._execute(query, _key_text(key), line).fetchone()[0]
        return other

    def merged_owner(self, line: int, owner: dict[str, str]) -> tuple[dict[str, str], Contradiction | None]:
        """Return the values that all rows of this owner give together, and a contradiction between them, if any."""
        if not self._has_merged_owners:
            return owner, None
        merged = {name: (value, line) for name, value in owner.items()}
        contradiction = None
        for name in OWNER_KEYS * 2:  # Twice: the rows that share one key may give the other key.
            key = _key_text((name, merged[name][0])) if name in merged else ""
            found = self._execute("SELECT owner, contradiction FROM merged_owner WHERE key = ?", key).fetchone()
            of_key, contradiction_of_key = map(json.loads, found or ("{}", "null"))
            contradiction = contradiction or contradiction_of_key
            for field, (value, first_line) in of_key.items():
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

    def keyless_owner_pets(self) -> Iterator[list[tuple[str, Key]]]:
        """Yield the owner_text() of owners without a key who are on several lines, with the keys of their pets."""
        pets = self._execute("SELECT owner, name, value FROM keyless_owner_pet")
        while batch := pets.fetchmany(BATCH_SIZE):
            yield [(owner, (name, value)) for owner, name, value in batch]

    def add_keyless_owner(self, owner: str, user_id: int) -> None:
        """Add the id of an owner without a key, who is identified by the owner_text()."""
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
