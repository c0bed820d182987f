"""Pets move between owners at random, while tasks are cancelled and time out: the books always balance.

Each owner's notes hold how many pets he has, so a move is one pet and two owners; the pet gains a gram, so what was
acknowledged can be counted. Half a move would be seen.
"""

import asyncio
import random

from sqlmodel import select

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    StaleVersionError,
    TransactionConflictError,
    User,
    UserCreate,
    create_pets,
    create_user,
    get_pet,
    get_user,
)

from .measures import Report, becomes_true, checked_out, statements_running

OWNERS = 10
PETS_EACH = 5


async def move_pets(db: Database, *, tasks: int = 50, moves: int = 10, seed: int | None = None) -> Report:
    """Move pets about from many tasks, a third of them interrupted at a random moment."""
    dice = random.Random(seed)
    owners, pets = await _open_accounts(db)
    report = Report()
    for name in ("units", "done", "cancelled", "timed out", "gave up", "errors"):
        report.count(name, 0)

    async def one_task() -> None:
        for _ in range(moves):
            report.count("units")
            await _interrupted_at_random(_move(db, dice, owners, pets), dice, report)

    await asyncio.gather(*(one_task() for _ in range(tasks)))
    await _audit(db, owners, report)
    return report


async def _open_accounts(db: Database) -> tuple[list[int], list[int]]:
    async with db.transaction() as session:
        owners = [
            (await create_user(session, UserCreate(name=f"Owner {number}", notes=str(PETS_EACH)))).id
            for number in range(OWNERS)
        ]
        await create_pets(
            session, [PetCreate(name="Rex", owner_id=owner, weight_g=1) for owner in owners for _ in range(PETS_EACH)]
        )
        pets = [pet.id for pet in await session.exec(select(Pet).where(Pet.owner_id.in_(owners)))]  # type: ignore[union-attr]
    return owners, pets


async def _move(db: Database, dice: random.Random, owners: list[int], pets: list[int]) -> None:
    pet_id, buyer_id = dice.choice(pets), dice.choice(owners)

    async def move(session: AsyncSession) -> None:
        pet = await get_pet(session, pet_id)
        seller, buyer = await get_user(session, pet.owner_id), await get_user(session, buyer_id)
        if seller is not buyer:
            seller.notes = str(int(seller.notes) - 1)
            await session.flush()
            buyer.notes = str(int(buyer.notes) + 1)
            await session.flush()
        # Edits of loaded rows: each carries the version it was read at, so no move works with a stale owner.
        pet.owner_id = buyer_id
        pet.weight_g += 1

    await db.run_transaction(move)


async def _interrupted_at_random(unit, dice: random.Random, report: Report) -> None:  # type: ignore[no-untyped-def]
    fate = dice.choice(("run", "run", "run", "run", "cancel", "time out"))
    moment = dice.choice((0.001, 0.01, 0.1)) * dice.random() * 3
    try:
        if fate == "time out":
            async with asyncio.timeout(moment):
                await unit
        elif fate == "cancel":
            task = asyncio.ensure_future(unit)
            asyncio.get_running_loop().call_later(moment, task.cancel)
            await task
        else:
            await unit
    except asyncio.CancelledError:
        report.count("cancelled")
    except TimeoutError:
        report.count("timed out")
    except (StaleVersionError, TransactionConflictError):
        report.count("gave up")
    except Exception as error:
        report.count("errors")
        report.claim(False, f"{type(error).__name__}: {error}")
    else:
        report.count("done")


async def _audit(db: Database, owners: list[int], report: Report) -> None:
    report.claim(await becomes_true(lambda: checked_out(db) == 0), f"{checked_out(db)} connections are still lent")

    async def server_is_quiet() -> bool:
        return await statements_running(db) == 0

    report.claim(await becomes_true(server_is_quiet), "the server is still at work on cancelled statements")
    async with db.reading() as session:
        pets = list(await session.exec(select(Pet).where(Pet.owner_id.in_(owners))))  # type: ignore[union-attr]
        books = {user.id: int(user.notes) for user in await session.exec(select(User).where(User.id.in_(owners)))}  # type: ignore[union-attr]
    held = {owner: sum(pet.owner_id == owner for pet in pets) for owner in owners}
    total = OWNERS * PETS_EACH
    report.count("pets", len(pets))
    report.claim(len(pets) == sum(books.values()) == total, f"{len(pets)} pets, {sum(books.values())} in the books")
    report.claim(books == held, f"the books say {books}, the owners hold {held}")
    moved = sum(pet.weight_g - 1 for pet in pets)
    done = report.counts["done"]
    interrupted = report.counts["cancelled"] + report.counts["timed out"]
    left_alone = report.counts["units"] - interrupted
    report.claim(2 * done >= left_alone, f"{done} moves were done of {left_alone} that nothing interrupted")
    report.claim(done <= moved <= done + interrupted, f"{done} moves were acknowledged, {moved} are in")
