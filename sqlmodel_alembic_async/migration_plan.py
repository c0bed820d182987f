"""Plan the steps of a migration command; detect a migration that was interrupted, and prepare its completion.

MariaDB and MySQL commit each DDL statement. If the first revision is stored but a table is missing, a downgrade was
interrupted. If no revision is stored but there are tables, an upgrade was interrupted, or create_tables() created them.
"""

from typing import Any

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from . import schema
from .migrations import VERSION

_Heads = tuple[str, ...]


def is_done(connection: sa.Connection, migration: MigrationContext) -> bool:
    """Return whether the command is an upgrade or a downgrade that has nothing to do.

    Raises:
        alembic.util.CommandError: There is no such revision, no path to it, or the stored revision is unknown.

    """
    if _direction(migration) not in ("upgrade", "downgrade"):
        return False
    heads = migration.get_current_heads()
    known = {script.revision for script in _scripts(migration).walk_revisions()}
    if not {*heads} <= known or len({*heads}) < len(heads):
        raise CommandError(f"Can't locate revision identified by {', '.join(map(repr, heads))}")
    corrected = _corrected_heads(connection, migration)
    steps = _steps(migration, heads if corrected is None else corrected)
    return corrected is None and not steps and schema.exists(connection, VERSION)


def correct_version(connection: sa.Connection, migration: MigrationContext) -> None:
    """If the first revision was interrupted, correct the stored version so that Alembic runs the revision again."""
    corrected = _corrected_heads(connection, migration)
    if corrected == ():
        connection.execute(VERSION.delete())
    for first in corrected or ():
        # Tables with rows are in use: create_tables() created them.
        if _steps(migration, (first,)) and schema.drop_if_empty(connection, _existing(connection, migration, first)):
            connection.execute(VERSION.insert().values(version_num=first))


def _corrected_heads(connection: sa.Connection, migration: MigrationContext) -> _Heads | None:
    """Return the version from which Alembic has to run an interrupted first revision again; None if there is none."""
    direction, heads = _direction(migration), migration.get_current_heads()
    if not schema.exists(connection, VERSION):
        return None
    for first in _scripts(migration).get_bases():
        existing = _existing(connection, migration, first)
        if direction == "upgrade" and heads == (first,) and len(existing) < len(_tables(migration, first)):
            return ()
        half_created = schema.commits_each_statement(connection) and heads == () and existing
        if direction == "downgrade" and half_created and all(schema.is_same(connection, table) for table in existing):
            return (first,)
    return None


def _steps(migration: MigrationContext, heads: _Heads) -> list[Any]:
    """Return the steps of the command from these revisions."""
    try:
        return list(migration.opts["fn"](heads, migration))
    except AssertionError as error:  # Alembic raises it for some revisions that do not exist.
        raise CommandError("there is no such revision") from error


def _direction(migration: MigrationContext) -> str:
    """Return the name of the function that Alembic's command passes to the environment, such as "upgrade"."""
    return str(migration.opts["fn"].__name__)


def _scripts(migration: MigrationContext) -> ScriptDirectory:
    scripts: ScriptDirectory = migration.opts["script"]
    return scripts


def _tables(migration: MigrationContext, revision: str) -> tuple[sa.Table, ...]:
    return getattr(_scripts(migration).get_revision(revision).module, "TABLES", ())


def _existing(connection: sa.Connection, migration: MigrationContext, revision: str) -> list[sa.Table]:
    return [table for table in _tables(migration, revision) if schema.exists(connection, table)]
