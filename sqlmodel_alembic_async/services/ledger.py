"""What an import must remember of a whole file, in a temporary file of its own: memory does not grow with the rows."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, Self

_TABLES = """
    CREATE TABLE claim (key TEXT, line INT);
    CREATE TABLE half (key TEXT, owner TEXT, line INT, PRIMARY KEY (key, owner)) WITHOUT ROWID;
    CREATE TABLE known (owner TEXT PRIMARY KEY, id INT) WITHOUT ROWID;
    CREATE TABLE seen (pet_id INTEGER PRIMARY KEY, line INT);
"""

OWNER_KEYS = ("external_ref", "email")

Key = tuple[str, str]  # A unique column, and a value of it.


def half(owner: Mapping[str, str]) -> str:
    """Return one text for the cells of an owner."""
    return json.dumps(owner, sort_keys=True)


class Ledger:
    """Knows which keys of pets two rows claim, what one owner's rows say together, and who was dealt with."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(_TABLES)
        self._database.execute("BEGIN")
        self.rows = 0
        self._claims: dict[str, list[int]] = {}
        self._merged: dict[str, dict[str, str]] = {}
        self._contradictions: dict[str, tuple[str, int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()

    def claim(self, line: int, pet_keys: Iterable[Key], owner_keys: Iterable[Key], owner: Mapping[str, str]) -> None:
        """Note the keys of a row."""
        for key in pet_keys:
            self._database.execute("INSERT INTO claim VALUES (?, ?)", (_text(key), line))
        for key in owner_keys:
            self._database.execute("INSERT OR IGNORE INTO half VALUES (?, ?, ?)", (_text(key), half(owner), line))

    def settle(self) -> None:
        """Find out, after all rows, what contradicts what."""
        twice = "SELECT key FROM {} GROUP BY key HAVING count(*) > 1"
        for key, line in self._database.execute(
            f"SELECT key, line FROM claim WHERE key IN ({twice.format('claim')}) ORDER BY line"  # noqa: S608
        ):
            self._claims.setdefault(key, []).append(line)
        lines: dict[tuple[str, str], int] = {}
        for key, owner, line in self._database.execute(
            f"SELECT key, owner, line FROM half WHERE key IN ({twice.format('half')}) ORDER BY line"  # noqa: S608
        ):
            merged = self._merged.setdefault(key, {})
            for name, text in json.loads(owner).items():
                if merged.setdefault(name, text) != text:
                    self._contradictions.setdefault(key, (name, lines[key, name], line))
                lines.setdefault((key, name), line)

    def other_claim(self, line: int, key: Key) -> int | None:
        """Return another line that claims this key of a pet, or None."""
        return next((other for other in self._claims.get(_text(key), ()) if other != line), None)

    def contradiction(self, keys: Iterable[Key]) -> tuple[str, int, int] | None:
        """Return the field in which the rows of one owner contradict each other, and two of their lines, or None."""
        return next(filter(None, (self._contradictions.get(_text(key)) for key in keys)), None)

    def whole_owner(self, owner: dict[str, Any]) -> dict[str, Any]:
        """Return what all rows of one owner say together; each may add a key that leads to further ones."""
        while True:
            whole = owner
            for name in OWNER_KEYS:
                if name in whole:
                    whole = self._merged.get(_text((name, whole[name])), {}) | whole
            if len(whole) == len(owner):
                return whole
            owner = whole

    def remember_owner(self, owner: str, user_id: int) -> None:
        """Note who an owner without a key became."""
        self._database.execute("INSERT OR REPLACE INTO known VALUES (?, ?)", (owner, user_id))

    def known_owner(self, owner: str) -> int | None:
        """Return who an owner without a key became, or None."""
        found = self._database.execute("SELECT id FROM known WHERE owner = ?", (owner,)).fetchone()
        return found[0] if found else None

    def first_line_of(self, pet_id: int, line: int) -> int:
        """Note that a row is about this pet, and return the first line that was."""
        self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (pet_id, line))
        return int(self._database.execute("SELECT line FROM seen WHERE pet_id = ?", (pet_id,)).fetchone()[0])


def _text(key: Key) -> str:
    return "=".join(key)
