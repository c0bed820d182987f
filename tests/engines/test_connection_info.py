"""What is noted about a connection: for how long, and where there is nowhere to note it."""

from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, ExceptionContext

from sqlmodel_alembic_async import Database, DatabaseUnavailableError
from sqlmodel_alembic_async.engines import driver_connections
from sqlmodel_alembic_async.engines.connection_info import info_of


async def test_a_note_about_a_connection_ends_with_it(migrated_url: URL) -> None:
    def note(connection: Connection) -> None:
        info_of(connection)["note"] = "kept"

    def read(connection: Connection) -> str | None:
        return info_of(connection).get("note")

    async with Database(migrated_url, pool_size=1, max_overflow=0) as db:
        async with db.engine.connect() as connection:
            await connection.run_sync(note)
        async with db.engine.connect() as connection:
            assert await connection.run_sync(read) == "kept"
            await connection.invalidate()
        async with db.engine.connect() as connection:
            assert await connection.run_sync(read) is None


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
async def test_an_error_while_a_server_is_first_asked_what_it_is_is_not_replaced_by_another(migrated_url: URL) -> None:
    infos: list[dict[Any, Any]] = []

    def lose(cursor: Any, *statement: object) -> None:
        driver_connections.terminate(cursor._adapt_connection.driver_connection)

    def note(context: ExceptionContext) -> None:
        if context.connection is not None:
            infos.append(info_of(context.connection))

    async with Database(migrated_url) as db:
        for execution in ("do_execute", "do_execute_no_params"):
            event.listen(db.engine.sync_engine, execution, lose)
        event.listen(db.engine.sync_engine, "handle_error", note)
        with pytest.raises(DatabaseUnavailableError):
            async with db.transaction():
                pass

    assert infos == [{}]
