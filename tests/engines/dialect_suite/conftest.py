"""SQLAlchemy's own suite for dialects, on the driver as it comes, or on engines that prepare() made ready."""

import os

import pytest
import sqlalchemy

from sqlmodel_alembic_async.engines import sqlite, task_guard

pytest.register_assert_rewrite("sqlalchemy.testing.assertions")

if os.environ["CONNECTION"] == "ours":
    create_engine = sqlalchemy.create_engine

    def create_ready_engine(*args: object, **options: object) -> sqlalchemy.Engine:
        engine = create_engine(*args, **options)
        if engine.dialect.driver == "aiosqlite":
            sqlite.prepare(engine)
            task_guard.refuse_concurrent_tasks(engine)
            # Some of the suite's tables have foreign keys that SQLite accepts only where it ignores them.
            sqlalchemy.event.listen(engine, "connect", lambda made, record: made.execute("PRAGMA foreign_keys = OFF"))
        return engine

    sqlalchemy.create_engine = create_ready_engine

from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: E402, F403  # it takes create_engine as it is now
