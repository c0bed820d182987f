"""Connections that are lost: between two units, in the middle of one, and while it commits."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

import pytest
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    DatabaseError,
    DatabaseUnavailableError,
    OutcomeUnknownError,
    PetCreate,
    PetUpdate,
    UserCreate,
    count_pets,
    create_pet,
    create_pets,
    create_user,
    databases,
    get_pet,
    get_session,
    list_pets,
    migrations,
    stream_pets,
    update_pet,
)

pytestmark = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)

_PATIENCE = 20  # Seconds; only a test that fails waits so long.
_ME = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT connection_id()"}
_COMMIT = {"postgresql": b"COMMIT", "mysql": b"\3COMMIT"}  # MariaDB's driver logs in with AUTOCOMMIT.
_KILL = {"postgresql": "SELECT pg_terminate_backend({})", "mysql": "KILL {}"}
_ALIVE = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE pid IN ({})",
    "mysql": "SELECT count(*) FROM information_schema.processlist WHERE id IN ({})",
}

Loss = Literal["question", "answer"]


class Network:
    """What lies between a client and its server: a TCP proxy that can lose what it carries."""

    def __init__(self, server: URL) -> None:
        self._server = server
        self._links: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._listener: asyncio.Server | None = None
        self._port = 0
        self._mark = b""
        self._loses: Loss = "question"
        self.losses = 0

    @property
    def url(self) -> URL:
        plain = {"ssl": "disable"} if self._server.get_backend_name() == "postgresql" else {}
        return self._server.set(host="127.0.0.1", port=self._port).update_query_dict(plain)

    async def open(self) -> None:
        """Take connections, at the same address as before."""
        self._listener = await asyncio.start_server(self._carry, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def shut(self) -> None:
        """End all connections, and refuse new ones."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.cut()
        await self.quiet()

    async def quiet(self) -> None:
        """Wait until all connections have ended, on both sides."""
        async with asyncio.timeout(_PATIENCE):
            while self._links:
                await asyncio.wait(self._links)

    def lose(self, mark: bytes, what: Loss) -> None:
        """End the connection that sends the mark next: before the server gets it, or once the server has answered."""
        self._mark, self._loses = mark, what

    async def _carry(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        link.add_done_callback(self._links.discard)
        server_in, server_out = await asyncio.open_connection(self._server.host, self._server.port)
        muted = False

        async def questions() -> None:
            nonlocal muted
            while data := await client_in.read(65536):
                if self._mark and self._mark in data:
                    self._mark = b""
                    self.losses += 1
                    if self._loses == "question":
                        return
                    muted = True
                server_out.write(data)

        async def answers() -> None:
            while (data := await server_in.read(65536)) and not muted:
                client_out.write(data)

        ends = {client_out, server_out}
        self._writers |= ends
        directions = [asyncio.ensure_future(direction) for direction in (questions(), answers())]
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.transport.abort()
        await asyncio.gather(*directions, return_exceptions=True)
        self._writers -= ends


@pytest.fixture
async def network(db: Database) -> AsyncIterator[Network]:
    network = Network(db.url)
    await network.open()
    yield network
    await network.shut()


@pytest.fixture
async def remote(network: Network) -> AsyncIterator[Database]:
    """The database of `db`, across the network; a connection that is not given back would soon be missed."""
    async with Database(network.url, pool_size=4, max_overflow=0, pool_timeout=_PATIENCE) as remote:
        yield remote


async def names(db: Database) -> list[str]:
    async with db.reading() as session:
        return [pet.name for pet in (await list_pets(session, limit=1000)).items]


async def scalar(session: AsyncSession, sql: str) -> int:
    return int((await (await session.connection()).exec_driver_sql(sql)).scalar_one())


async def identity(session: AsyncSession) -> int:
    """Return the server's number for the connection of this session."""
    return await scalar(session, _ME[session.get_bind().dialect.name])


async def kill(db: Database, *connections: int) -> None:
    """Let the server end these connections, and wait until they are gone."""
    dialect = db.engine.dialect.name
    async with db.session() as session, asyncio.timeout(_PATIENCE):
        for connection in connections:
            await (await session.connection()).exec_driver_sql(_KILL[dialect].format(connection))
        while await scalar(session, _ALIVE[dialect].format(", ".join(map(str, connections)))):
            await session.rollback()  # PostgreSQL shows one transaction the same activity throughout.
            await asyncio.sleep(0.01)


async def open_connections(db: Database) -> list[int]:
    """Leave the pools full of idle connections, and return the server's numbers for them."""
    every = asyncio.Barrier(4)

    async def hold(block: Callable[[], contextlib.AbstractAsyncContextManager[AsyncSession]]) -> int:
        async with block() as session:
            connection = await identity(session)
            await every.wait()
            return connection

    async with asyncio.timeout(_PATIENCE):
        return list(await asyncio.gather(*(hold(block) for block in [db.transaction, db.reading] * 2)))


class _Left(Exception):  # noqa: N818  # an error of the caller's own, nothing that went wrong
    pass


@contextlib.asynccontextmanager
async def left_by_error(db: Database) -> AsyncIterator[AsyncSession]:
    with contextlib.suppress(_Left):
        async with db.transaction() as session:
            yield session


async def add_pet(session: AsyncSession) -> None:
    await create_pet(session, PetCreate(name="Rex"))


async def in_transaction(db: Database) -> None:
    async with db.transaction() as session:
        await add_pet(session)


async def in_run_transaction(db: Database) -> None:
    calls = 0

    async def work(session: AsyncSession) -> None:
        nonlocal calls
        calls += 1
        await add_pet(session)

    try:
        await db.run_transaction(work)
    finally:
        assert calls <= 1


async def in_request(db: Database) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(databases, "database", db)
        async for session in get_session():
            await add_pet(session)


async def in_session(db: Database) -> None:
    async with db.session() as session:
        await add_pet(session)
        await session.commit()


async def in_reading(db: Database) -> None:
    async with db.reading() as session:
        await count_pets(session)


async def in_migration(db: Database) -> None:
    assert await migrations.current(database=db) == migrations.head()


async def in_creation(db: Database) -> None:
    await db.create_tables()


WRITING = [in_transaction, in_run_transaction, in_request, in_session]
UNITS = [*WRITING, in_reading, in_migration, in_creation]
Unit = Callable[[Database], Awaitable[None]]


@pytest.mark.parametrize("unit", UNITS)
async def test_nobody_notices_connections_that_the_server_ended_while_idle(
    db: Database, network: Network, remote: Database, unit: Unit
) -> None:
    await kill(db, *await open_connections(remote))
    await network.quiet()

    await unit(remote)

    assert await names(remote) == (["Rex"] if unit in WRITING else [])


@pytest.mark.parametrize("unit", UNITS)
async def test_nobody_notices_a_server_that_restarted_while_idle(
    network: Network, remote: Database, unit: Unit
) -> None:
    await open_connections(remote)
    await network.shut()
    await network.open()

    await unit(remote)

    assert await names(remote) == (["Rex"] if unit in WRITING else [])


async def test_nobody_notices_a_restart_however_many_come_back_at_once(network: Network, remote: Database) -> None:
    for _ in range(2):
        await open_connections(remote)
        await network.shut()
        await network.open()

        await asyncio.gather(*(unit(remote) for unit in [in_transaction, in_run_transaction, in_reading] * 8))

    assert len(await names(remote)) == 2 * 16


@pytest.mark.parametrize("unit", UNITS)
async def test_a_server_that_is_down_is_unavailable_until_it_is_back(
    network: Network, remote: Database, unit: Unit
) -> None:
    await open_connections(remote)
    await network.shut()

    for _ in range(5):
        with pytest.raises(DatabaseUnavailableError):
            await unit(remote)
    await network.open()
    await unit(remote)

    assert await names(remote) == (["Rex"] if unit in WRITING else [])


@pytest.mark.parametrize("what", ["question", "answer"])
@pytest.mark.parametrize("unit", [in_transaction, in_reading])
async def test_a_connection_that_is_lost_while_it_logs_in_is_unavailable(
    network: Network, remote: Database, unit: Unit, what: Loss
) -> None:
    network.lose(str(network.url.username).encode(), what)

    with pytest.raises(DatabaseUnavailableError):
        await unit(remote)
    await unit(remote)

    assert network.losses == 1


async def test_a_server_that_hangs_up_at_once_is_unavailable(db: Database) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as listener:
        url = db.url.set(host="127.0.0.1", port=listener.sockets[0].getsockname()[1])
        async with Database(url) as remote:
            for unit in UNITS:
                with pytest.raises(DatabaseUnavailableError):
                    await unit(remote)


class Cut:
    """Cuts the network when a database is about to send its statement number `at`."""

    def __init__(self, database: Database, network: Network, at: int | None = None) -> None:
        self.statements = 0
        self._at = at
        self._network = network
        self._event = (database.engine.sync_engine, "before_cursor_execute", self._note)

    def __enter__(self) -> "Cut":
        event.listen(*self._event)
        return self

    def __exit__(self, *error: object) -> None:
        event.remove(*self._event)

    def _note(self, *statement: object) -> None:
        self.statements += 1
        if self.statements == self._at:
            self._network.cut()


async def long_unit(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com"))
    rex = await create_pet(session, PetCreate(name="Rex", owner_id=ada.id))
    async with session.begin_nested():
        await update_pet(session, rex.id, PetUpdate(color="red"), expected_version=1)
    await create_pets(session, [PetCreate(name="Max"), PetCreate(name="Tom")])
    assert len((await list_pets(session)).items) == 3
    (await get_pet(session, rex.id)).weight_g = 7


@pytest.mark.parametrize("how", ["transaction", "run_transaction"])
async def test_a_connection_lost_before_any_statement_is_unavailable_and_leaves_no_row(
    db: Database, network: Network, remote: Database, how: str
) -> None:
    calls = 0

    async def work(session: AsyncSession) -> None:
        nonlocal calls
        calls += 1
        await long_unit(session)

    async def unit() -> None:
        if how == "run_transaction":
            await remote.run_transaction(work)
        else:
            async with remote.transaction() as session:
                await work(session)

    with Cut(remote, network) as whole, pytest.raises(KeyError):
        async with remote.transaction() as session:
            await long_unit(session)
            await session.flush()
            raise KeyError("dry run")
    assert whole.statements >= 9
    for number in range(1, whole.statements + 1):
        await in_reading(remote)
        calls = 0
        with Cut(remote, network, number), pytest.raises(DatabaseUnavailableError):
            await unit()
        assert calls == 1
        assert await names(db) == []
    await unit()

    assert await names(db) == ["Max", "Rex", "Tom"]


async def test_a_connection_that_is_lost_with_an_answer_is_unavailable_and_leaves_no_row(
    db: Database, network: Network, remote: Database
) -> None:
    network.lose(b"985000000000007", "answer")

    with pytest.raises(DatabaseUnavailableError):
        async with remote.transaction() as session:
            await create_pet(session, PetCreate(name="Lost"))
            await create_pet(session, PetCreate(name="Lost", microchip="985000000000007"))
    async with remote.transaction() as session:
        await create_pet(session, PetCreate(name="Rex", microchip="985000000000007"))

    assert network.losses == 1
    assert await names(db) == ["Rex"]


@pytest.mark.parametrize("call", [add_pet, count_pets], ids=["create", "count"])
@pytest.mark.parametrize("block", ["transaction", "session", "savepoint"])
async def test_a_connection_killed_in_a_transaction_is_told_by_the_service_itself(
    db: Database, remote: Database, block: str, call: Callable[[AsyncSession], Awaitable[object]]
) -> None:
    nested = block == "savepoint"
    for _ in range(3):
        async with (
            remote.session() if block == "session" else left_by_error(remote) as session,
            session.begin_nested() if nested else contextlib.nullcontext(),
        ):
            await add_pet(session)
            await kill(db, await identity(session))

            with pytest.raises(DatabaseUnavailableError):
                await call(session)

            if block != "session":
                raise _Left

    assert await names(db) == []


async def test_a_loss_that_is_caught_never_lets_the_rest_be_committed(
    db: Database, network: Network, remote: Database
) -> None:
    for nested in (False, True):
        with pytest.raises(DatabaseError):
            async with remote.transaction() as session:
                await create_pet(session, PetCreate(name="Before"))
                network.cut()
                with contextlib.suppress(DatabaseError):
                    async with session.begin_nested() if nested else contextlib.nullcontext():
                        await create_pet(session, PetCreate(name="Lost"))
                await create_pet(session, PetCreate(name="After"))

        assert await names(db) == []


@pytest.mark.parametrize("snapshot", [False, True])
async def test_a_reading_that_ends_without_its_connection_is_no_error(
    db: Database, network: Network, remote: Database, snapshot: bool
) -> None:
    await in_transaction(db)

    async with remote.reading(snapshot=snapshot) as session:
        assert await count_pets(session) == 1
        network.cut()
    await network.quiet()
    async with remote.reading(snapshot=snapshot) as session:
        assert await count_pets(session) == 1
        await kill(db, await identity(session))
    await network.quiet()

    assert await names(remote) == ["Rex"]


async def test_a_connection_that_is_lost_while_streaming_is_unavailable(
    db: Database, network: Network, remote: Database
) -> None:
    async with db.transaction() as session:
        await create_pets(session, (PetCreate(name=f"Pet {number:04}") for number in range(1001)))
    seen = []

    with pytest.raises(DatabaseUnavailableError):
        async with remote.reading() as session:
            async for pet in stream_pets(session):
                seen.append(pet.name)
                if len(seen) == 1:
                    network.cut()

    assert seen == [f"Pet {number:04}" for number in range(1000)]


async def test_an_error_of_the_callers_own_outlives_the_connection(
    db: Database, network: Network, remote: Database
) -> None:
    mine = KeyError("mine")

    for block in (remote.transaction, remote.reading):
        with pytest.raises(KeyError) as caught:
            async with block() as session:
                await count_pets(session)
                network.cut()
                raise mine
        assert caught.value is mine
        await network.quiet()

    assert await names(remote) == []


@pytest.mark.parametrize(("what", "left"), [("question", []), ("answer", ["Rex"])])
@pytest.mark.parametrize("unit", [in_transaction, in_run_transaction, in_request])
async def test_a_connection_lost_while_committing_leaves_the_outcome_unknown_and_repeats_nothing(
    db: Database, network: Network, remote: Database, unit: Unit, what: Loss, left: list[str]
) -> None:
    network.lose(_COMMIT[db.engine.dialect.name], what)

    with pytest.raises(OutcomeUnknownError):
        await unit(remote)

    assert network.losses == 1
    assert await names(db) == left
    await unit(remote)
    assert await names(remote) == [*left, "Rex"]


@pytest.mark.parametrize("what", ["question", "answer"])
async def test_an_edit_that_is_flushed_at_the_end_is_in_wholly_or_not_at_all(
    db: Database, network: Network, remote: Database, what: Loss
) -> None:
    network.lose(_COMMIT[db.engine.dialect.name], what)
    calls = 0

    async def work(session: AsyncSession) -> None:
        nonlocal calls
        calls += 1
        await long_unit(session)

    with pytest.raises(OutcomeUnknownError):
        await remote.run_transaction(work)

    assert calls == 1
    async with db.reading() as session:
        pets = [(pet.name, pet.weight_g, pet.version) for pet in (await list_pets(session)).items]
    assert pets == ([] if what == "question" else [("Max", None, 1), ("Rex", 7, 3), ("Tom", None, 1)])


async def test_what_is_acknowledged_is_in_however_often_the_connections_are_lost(
    db: Database, network: Network, remote: Database
) -> None:
    acknowledged: set[str] = set()
    refused: set[str] = set()
    begun = 0

    async def add(worker: int) -> None:
        nonlocal begun
        for number in range(15):
            name = f"{worker} {number}"
            begun += 1
            cuts = begun % 7 == 0
            try:
                async with remote.transaction() as session:
                    await create_pet(session, PetCreate(name=name))
                    if cuts:
                        network.cut()
                    await create_pet(session, PetCreate(name=name))
            except DatabaseUnavailableError:
                refused.add(name)
            except OutcomeUnknownError:
                pass
            else:
                acknowledged.add(name)

    await asyncio.gather(*map(add, range(4)))

    rows = await names(db)
    assert refused
    assert acknowledged <= set(rows)
    assert not refused & set(rows)
    assert {rows.count(name) for name in rows} == {2}


@pytest.mark.parametrize("answers", [1, 2, 3, 4, 6])
async def test_a_connection_that_is_lost_while_it_is_opened_is_unavailable(migrated_url: URL, answers: int) -> None:
    server_port = make_url(migrated_url).port or {"postgresql": 5432}.get(migrated_url.get_backend_name(), 3306)

    async def serve(client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        reader, writer = await asyncio.open_connection(migrated_url.host, server_port)

        async def ask() -> None:
            while question := await client_reader.read(65536):
                writer.write(question)

        asking = asyncio.ensure_future(ask())
        for _ in range(answers):
            client_writer.write(await reader.read(65536))
            await client_writer.drain()
        client_writer.transport.abort()
        writer.transport.abort()
        await asyncio.wait([asking])
        asking.exception()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    query = {"sslmode": "disable"} if migrated_url.get_backend_name() == "postgresql" else {}
    outcomes = []
    async with listener, Database(migrated_url.set(host="127.0.0.1", port=port).update_query_dict(query)) as db:
        for opened in (db.reading, db.transaction):
            try:
                async with opened() as session:
                    await count_pets(session)
            except DatabaseUnavailableError:
                outcomes.append("unavailable")
            else:
                outcomes.append("answered")

    assert set(outcomes) <= {"unavailable", "answered"}
    assert answers > 2 or outcomes == ["unavailable", "unavailable"]
