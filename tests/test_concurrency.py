"""Many tasks, processes and interruptions at once; `python -m tests.stress` does the same for minutes."""

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import product
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.exc import InvalidRequestError, SAWarning
from sqlmodel import select

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    DatabaseError,
    Pet,
    PetCreate,
    PetUpdate,
    UserCreate,
    count_pets,
    count_users,
    create_pet,
    create_pets,
    create_user,
    get_pet,
    list_pets,
    update_pet,
)

from .stress import bank, cancels, contention, kills, pools
from .stress.measures import becomes_true, checked_out, descriptors, threads

ROOT = Path(__file__).parents[1]
on_sqlite = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)


@pytest.fixture
async def own_db(empty_url: URL) -> AsyncIterator[Database]:
    """A database that no other test uses: here other processes use it, too."""
    async with Database(empty_url) as database:
        await database.create_tables()
        yield database


async def pets_in(db: Database) -> int:
    async with db.reading() as session:
        return await count_pets(session)


# Contention.


async def test_no_update_of_one_row_by_many_tasks_is_lost(db: Database) -> None:
    report = await contention.contend(db, tasks=100, units=10, longest_wait=None)  # The campaign measures that.

    assert report.broken == []


@on_sqlite
async def test_no_update_of_one_row_by_two_processes_is_lost(own_db: Database) -> None:
    report = await contention.contend_by_two_processes(own_db, tasks=20, units=10)

    assert report.broken == []


@on_sqlite
async def test_what_is_acknowledged_is_seen_by_processes_that_come_and_go(own_db: Database) -> None:
    # Whoever closes a descriptor of the file drops this process's locks on it: then another process takes itself for
    # the last one, and deletes the log that this one goes on writing to.
    path = Path(str(own_db.url.database))
    count = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM pet').fetchone()[0])"

    def seen_by_another_process() -> int:
        return int(subprocess.run([sys.executable, "-c", count, path], capture_output=True, check=True).stdout)

    await create_rex(own_db)
    async with own_db.reading() as session, own_db.reading() as other, own_db.session() as plain:
        for each in (session, other, plain):
            await count_pets(each)
    seen = [await asyncio.to_thread(seen_by_another_process)]
    for _ in range(3):
        await create_rex(own_db)
        seen.append(await asyncio.to_thread(seen_by_another_process))

    assert seen == [1, 2, 3, 4]


@on_sqlite
async def test_writers_of_one_process_are_served_in_order_of_arrival(db: Database) -> None:
    served: list[int] = []

    async def serve(number: int) -> None:
        served.append(number)

    async def write(number: int) -> None:
        if number % 2:
            await db.run_transaction(lambda session: serve(number))
        else:
            async with db.transaction():
                await serve(number)

    async with db.transaction():
        writers = [asyncio.create_task(write(number)) for number in range(40)]
        await asyncio.sleep(0)  # One step takes each of them into the queue.
    await asyncio.gather(*writers)

    assert served == list(range(40))


@on_sqlite
async def test_a_writer_that_never_pauses_starves_nobody(db: Database) -> None:
    units_of_the_busy_one = 0
    overtaken: list[int] = []

    async def never_pause() -> None:
        nonlocal units_of_the_busy_one
        while True:
            async with db.transaction() as session:
                units_of_the_busy_one += 1
                await count_pets(session)

    async def write() -> None:
        arrived = units_of_the_busy_one
        async with db.transaction():
            overtaken.append(units_of_the_busy_one - arrived)

    busy = asyncio.create_task(never_pause())
    await becomes_true(lambda: units_of_the_busy_one > 3)
    for _ in range(10):
        async with asyncio.timeout(5):
            await asyncio.gather(write(), db.run_transaction(count_pets), write())
    busy.cancel()
    await asyncio.gather(busy, return_exceptions=True)

    assert max(overtaken) <= 1


async def test_readers_never_wait_for_writers(db: Database) -> None:
    async with db.transaction() as session:
        pet = await create_pet(session, PetCreate(name="Rex"))

    async def write(number: int) -> None:
        async with db.transaction() as session:
            await update_pet(session, pet.id, PetUpdate(color=f"number {number}"))

    async with db.transaction() as session:
        await update_pet(session, pet.id, PetUpdate(name="Changed"))
        writers = [asyncio.create_task(write(number)) for number in range(50)]
        await asyncio.sleep(0)
        async with asyncio.timeout(2):
            for _ in range(3):
                await asyncio.gather(*(pets_in(db) for _ in range(20)))
            async with db.reading() as reader:
                name = (await get_pet(reader, pet.id)).name
    await asyncio.gather(*writers)

    assert name == "Rex"
    async with db.reading() as reader:
        assert (await get_pet(reader, pet.id)).version == 52


# Interruptions.


async def test_books_balance_whatever_is_interrupted(db: Database, migrated_url: URL) -> None:
    before = threads(), descriptors()

    async with Database(migrated_url) as busy:
        report = await bank.move_pets(busy, tasks=50, moves=3)

    assert report.broken == []
    assert await becomes_true(lambda: threads() <= before[0] and descriptors() <= before[1])


@pytest.mark.parametrize("kind", cancels.KINDS)
async def test_an_interrupted_query_returns_at_once_and_leaves_nothing_behind(
    db: Database, engine_name: str, kind: str
) -> None:
    report = await cancels.interrupt(db, engine_name, kind)

    assert report.broken == []


@on_sqlite
async def test_a_transaction_that_waits_for_another_process_is_interrupted_at_once(own_db: Database) -> None:
    report = await cancels.interrupt_waiting_for_another_process(own_db, rounds=4)

    assert report.broken == []


async def test_a_transaction_that_waits_for_another_one_is_interrupted_at_once(db: Database) -> None:
    async with db.transaction() as session:
        pet = await create_pet(session, PetCreate(name="Rex"))

    async def write(color: str) -> None:
        async with db.transaction() as session:
            await update_pet(session, pet.id, PetUpdate(color=color))

    async with db.transaction() as session:
        await update_pet(session, pet.id, PetUpdate(name="Changed"))
        returned = []
        for _ in range(3):
            began = time.perf_counter()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await asyncio.create_task(write("never"))  # A task has one transaction at a time.
            returned.append(time.perf_counter() - began)
    began = time.perf_counter()
    await write("red")
    wrote = time.perf_counter() - began

    # A busy machine may hold up one round; a lock that is waited for holds up each.
    assert sorted(returned)[1] < 0.05 + cancels.PROMPT
    assert wrote < cancels.PROMPT
    async with db.reading() as session:
        pet = await get_pet(session, pet.id)
    assert (pet.name, pet.color, pet.version) == ("Changed", "red", 3)


async def test_a_waiting_writer_that_is_cancelled_passes_its_turn_on(db: Database) -> None:
    async def write() -> None:
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Rex"))

    for steps in range(20):
        async with db.transaction():
            writers = [asyncio.create_task(write()) for _ in range(4)]
            await asyncio.sleep(0)
        for _ in range(steps):  # The first one is cancelled before, while and after its turn comes.
            await asyncio.sleep(0)
        writers[0].cancel()
        writers[2].cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(*writers, return_exceptions=True)
        assert writers[1].exception() is writers[3].exception() is None

    assert await becomes_true(lambda: checked_out(db) == 0)
    assert 40 <= await pets_in(db) <= 80


async def test_a_unit_cancelled_at_any_point_is_wholly_in_or_not_at_all(db: Database) -> None:
    async def unit(name: str) -> None:
        async with db.transaction() as session:
            owner = await create_user(session, UserCreate(name=name))
            await create_pets(session, [PetCreate(name=name, owner_id=owner.id)] * 3)
            pet = (await list_pets(session, owner_id=owner.id, limit=1)).items[0]
            await update_pet(session, pet.id, PetUpdate(color="red"))
            pet.species = "dog"

    began = time.perf_counter()
    await unit("whole")
    duration = time.perf_counter() - began
    acknowledged = {"whole"}
    for number in range(60):
        task = asyncio.create_task(unit(f"unit {number}"))
        asyncio.get_running_loop().call_later(random.uniform(0, 1.2 * duration), task.cancel)
        [outcome] = await asyncio.gather(task, return_exceptions=True)
        if outcome is None:
            acknowledged.add(f"unit {number}")
        else:
            assert isinstance(outcome, asyncio.CancelledError)

    assert await becomes_true(lambda: checked_out(db) == 0)
    async with db.reading() as session:
        users, pets = await count_users(session), await count_pets(session)
        names = {pet.name for pet in await session.exec(select(Pet).where(Pet.species == "dog", Pet.color == "red"))}
    assert (len(names), pets) == (users, 3 * users)
    assert acknowledged <= names


@on_sqlite
def test_a_process_that_is_killed_leaves_no_part_of_a_batch(own_db: Database) -> None:
    url = own_db.url.render_as_string(hide_password=False)

    report = kills.kill_while_creating(url, kills=5)

    assert report.broken == []
    assert kills.integrity(str(own_db.url.database)) == "ok"


# Pools.


async def test_many_tasks_share_few_connections(db: Database) -> None:
    report = await pools.crowd(db.url, tasks=200)

    assert report.broken == []


@pytest.mark.parametrize("kind", pools.KINDS)
async def test_a_pool_that_forgetful_callers_exhausted_says_so_after_the_time_out(db: Database, kind: str) -> None:
    report = await pools.exhaust(db.url, kind)

    assert report.broken == []


# One session, two tasks.

Work = Callable[[AsyncSession, int], Awaitable[object]]
WRITES: dict[str, Work] = {
    "create": lambda session, number: create_pet(session, PetCreate(name=f"Pet {number}")),
    "create in batches": lambda session, number: create_pets(session, [PetCreate(name=f"Pet {number}")]),
    "update": lambda session, number: update_pet(session, number, PetUpdate(color="red")),
}
READS: dict[str, Work] = {
    "get": lambda session, number: get_pet(session, number),
    "list": lambda session, number: list_pets(session),
    "exec": lambda session, number: session.exec(select(Pet)),
    "exec text": lambda session, number: session.exec(text("SELECT 1")),  # type: ignore[call-overload]
}
ENDS: dict[str, Work] = {
    "commit": lambda session, number: session.commit(),
    "rollback": lambda session, number: session.rollback(),
    "close": lambda session, number: session.close(),
}


async def create_rex(db: Database) -> int:
    async with db.transaction() as session:
        return (await create_pet(session, PetCreate(name="Rex"))).id


@pytest.mark.parametrize(
    ("block", "name"),
    [*product(("transaction", "session"), (*WRITES, *READS)), *product(("reading",), READS)],
)
async def test_a_session_used_by_two_tasks_at_once_is_refused(db: Database, block: str, name: str) -> None:
    rex = await create_rex(db)
    tasks: list[asyncio.Future[object]] = []

    with pytest.raises((DatabaseError, InvalidRequestError)):
        async with asyncio.timeout(5), getattr(db, block)() as session:
            await create_pet(session, PetCreate(name="Before")) if block == "transaction" else None
            tasks += [asyncio.ensure_future((WRITES | READS)[name](session, rex)) for _ in range(3)]
            await asyncio.gather(*tasks)
            await session.commit()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert await becomes_true(lambda: checked_out(db) == 0)
    async with db.reading() as session:
        assert [(pet.name, pet.color) for pet in (await list_pets(session)).items] == [("Rex", None)]


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("block", ["transaction", "session"])
async def test_what_a_shared_session_acknowledges_is_in_and_what_it_refuses_is_not(
    db: Database, block: str, name: str
) -> None:
    rex = await create_rex(db)

    committed = False
    try:
        async with asyncio.timeout(5), getattr(db, block)() as session:
            works = [WRITES[name](session, rex) for _ in range(3)]
            outcomes = await asyncio.gather(*works, return_exceptions=True)
            await session.commit()
        committed = True
    except (DatabaseError, InvalidRequestError):
        pass

    acknowledged = sum(not isinstance(outcome, BaseException) for outcome in outcomes)
    async with db.reading() as session:
        changes = await count_pets(session) - 1 + (await get_pet(session, rex)).version - 1
    assert changes == (acknowledged if committed else 0)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("block", ["transaction", "session"])
async def test_a_session_that_one_task_ends_while_another_uses_it_is_refused_and_does_not_hang(
    db: Database, block: str, end: str
) -> None:
    rex = await create_rex(db)
    outcomes: list[object] = []

    try:
        async with asyncio.timeout(5), getattr(db, block)() as session:
            await get_pet(session, rex)
            outcomes += await asyncio.gather(
                create_pet(session, PetCreate(name="Max")),
                ENDS[end](session, 0),
                create_pet(session, PetCreate(name="Max")),
                return_exceptions=True,
            )
    except (DatabaseError, InvalidRequestError) as error:
        outcomes.append(error)

    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert refused or end == "close"  # A session that is closed between two calls opens again for the second one.
    # SQLAlchemy remarks on a transaction that two tasks end, and here remarks are errors.
    known = DatabaseError | InvalidRequestError | SAWarning
    assert [error for error in refused if not isinstance(error, known)] == []
    assert await becomes_true(lambda: checked_out(db) == 0)
    async with asyncio.timeout(5):
        assert await pets_in(db) in (1, 2)


# Processes that end, and event loops.

PROGRAM = """
import asyncio, sys
from sqlalchemy import text
from sqlmodel_alembic_async import Database, PetCreate, count_pets, create_pet

db = Database({url!r})

async def use():
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))
    async with db.reading() as session:
        assert await count_pets(session) == 1

async def ask():
    async with db.reading() as session:
        await session.exec(text({query!r}))

async def write_and(then):
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Lost"))
        inside.set()
        await then(session)

async def begin(work):
    global inside
    inside = asyncio.Event()
    asyncio.get_running_loop().call_later(0.2, inside.set)
    task = asyncio.ensure_future(work)
    await inside.wait()
    return task

async def main():
    global kept
    await use()
    print("ending", flush=True)
    {end}

asyncio.run(main())
print("ended", flush=True)
"""
PROCESS_ENDS = {
    "idle": "pass",
    "with an open session": "kept = db.session(); await count_pets(kept)",
    "with an open transaction": "kept = db.transaction(); await kept.__aenter__()",
    "with a transaction in a task": "kept = await begin(write_and(lambda session: asyncio.sleep(60)))",
    "with a running query": "kept = await begin(ask())",
    "with a running query in a transaction":
        "kept = await begin(write_and(lambda session: session.exec(text({query!r}))))",
    "with two transactions in tasks, of which SQLite lets one wait":
        "kept = [await begin(write_and(lambda session: asyncio.sleep(60))) for _ in range(2)]",
}  # fmt: skip


def run_program(program: str, *options: str) -> tuple[int, str, str, float]:
    """Return the exit code, what is printed, the errors, and the seconds from the first line on."""
    command = [sys.executable, *options, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        patience = threading.Timer(60, process.kill)
        patience.start()
        first_line = process.stdout.readline()
        began = time.perf_counter()
        output, errors = first_line + process.stdout.read(), process.stderr.read()
        code = process.wait()
        patience.cancel()
        return code, output, errors, time.perf_counter() - began


@pytest.mark.parametrize("end", PROCESS_ENDS)
async def test_a_process_that_does_not_dispose_ends_soon_and_quietly(db: Database, engine_name: str, end: str) -> None:
    query = cancels.READS[engine_name]
    url = db.url.render_as_string(hide_password=False)
    program = PROGRAM.format(url=url, query=query, end=PROCESS_ENDS[end].format(query=query))

    code, output, errors, seconds = await asyncio.to_thread(run_program, program, "-W", "error")

    assert (code, output, errors) == (0, "ending\nended\n", "")
    assert seconds < 5
    assert await pets_in(db) == 1
    async with asyncio.timeout(1), db.transaction() as session:  # Nothing of that process is in the way.
        await create_pet(session, PetCreate(name="Next"))


TWO_RUNS = """
import asyncio
from sqlalchemy import text
from sqlmodel_alembic_async import Database, PetCreate, count_pets, create_pet
from tests.stress.measures import becomes_true, checked_out

db = Database({url!r}, pool_size=3, max_overflow=0)
print("begun", flush=True)

async def write(seconds):
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))
        await asyncio.sleep(seconds)

async def ask():
    async with db.reading() as session:
        await session.exec(text({query!r}))

async def leave_work_in_flight():
    await write(0)
    global kept
    kept = [asyncio.ensure_future(work) for work in (write(60), ask(), write(60), write(60), ask())]
    await asyncio.sleep(0.2)

async def go_on(expected):
    async with asyncio.timeout(2):
        assert await becomes_true(lambda: checked_out(db) == 0), checked_out(db)
        await asyncio.gather(*(write(0) for _ in range(10)))
        async with db.reading() as session:
            assert await count_pets(session) == expected

asyncio.run(leave_work_in_flight())
asyncio.run(go_on(11))
asyncio.run(leave_work_in_flight())
asyncio.run(go_on(22))
print("ended", flush=True)
"""


async def test_an_event_loop_that_ends_with_work_in_flight_leaves_the_next_one_nothing_to_wait_for(
    db: Database, engine_name: str
) -> None:
    url = db.url.render_as_string(hide_password=False)

    outcome = await asyncio.to_thread(run_program, TWO_RUNS.format(url=url, query=cancels.READS[engine_name]))

    assert outcome[:3] == (0, "begun\nended\n", "")
    assert outcome[3] < 10
