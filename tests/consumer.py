"""A program of somebody who uses the package: `mypy --strict` reads it, and tests/test_consumer.py runs it."""

from collections.abc import Sequence
from datetime import UTC, date, datetime

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_alembic_async import (
    Database,
    DuplicateGroup,
    DuplicateReason,
    MergeReport,
    MicrochipDescription,
    Page,
    Pet,
    PetCreate,
    PetNotFoundError,
    PetStatistics,
    PetUpdate,
    SimilarExistsError,
    UpsertReport,
    User,
    UserCreate,
    anonymise_user,
    count_users,
    create_pet,
    create_pets,
    create_user,
    describe_microchip,
    find_duplicate_pets,
    find_pet_by_microchip,
    get_pet,
    get_user,
    list_pets,
    list_users,
    merge_pets,
    merge_users,
    migrations,
    pet_statistics,
    stream_pets,
    transfer_pet,
    update_pet,
    upsert_pet,
    upsert_users,
)


async def register(session: AsyncSession) -> Pet:
    ada: User = await create_user(session, UserCreate(name="Ada"))
    pet = Pet(name="Rex", species="dog", birth_date=date(2020, 1, 1))
    session.add(pet)
    await session.flush()
    return await transfer_pet(session, pet.id, ada.id)


async def main(url: str) -> list[str]:
    shown: list[str] = []
    async with Database(url) as db:
        await migrations.upgrade(database=db)
        pet: Pet = await db.run_transaction(register)
        async with db.transaction() as session:
            number: int = await create_pets(session, [PetCreate(name="Max", weight_g=4200)])
            await create_pet(session, PetCreate(name="Leo", sex="male", microchip="985141000123456"))
        async with db.reading() as session:
            page: Page[Pet] = await list_pets(session, order_by="-name", species="dog", name_prefix="r", limit=10)
            shown += [pet.name for pet in page.items]
            rows: Sequence[Pet] = (await session.exec(select(Pet).where(Pet.name == "Max"))).all()
            shown += [str(row.weight_g) for row in rows]
            async for each in stream_pets(session, order_by="id"):
                shown.append(each.name)
            found: Pet | None = await find_pet_by_microchip(session, "985 141 000 123 456")
            shown.append(found.name if found else "-")
            figures: PetStatistics = await pet_statistics(session, changed_since=datetime(2020, 1, 1, tzinfo=UTC))
            described: MicrochipDescription = describe_microchip("985 141 000 123 456")
            shown += [str(figures.by_species[None] + figures.by_sex["male"]), described.issuer or "-"]
            users = (await list_users(session, after=None)).items
            owner = await get_user(session, users[0].id, with_pets=True)
            shown += [owner.name, owner.pets[0].name, str(await count_users(session, archived=None)), str(number)]
            try:
                await get_pet(session, 10**9)
            except PetNotFoundError as error:
                key: int | None = error.key
                shown.append(str(key))
        async with db.transaction() as session:
            twin = PetCreate(name="Leo", notes="985 141 000 123 456")
            try:
                await create_pet(session, twin, on_similar="error")
            except SimilarExistsError as error:
                shown.append(str(len(error.candidates)))
            await create_pet(session, twin)
            group: DuplicateGroup[Pet]
            async for group in find_duplicate_pets(session):
                reasons: tuple[DuplicateReason, ...] = group.reasons
                shown += [*reasons, str(group.score)]
        async with db.transaction() as session:
            shown.append((await update_pet(session, pet.id, PetUpdate(breed=None, status="missing"))).status)
            second: User = await create_user(session, UserCreate(name="Ada", city="London"))
            copy: Pet = await create_pet(session, PetCreate(name="Rex", breed="Pug"))
            merged: MergeReport[User] = await merge_users(session, owner.id, second.id)
            trial: MergeReport[Pet] = await merge_pets(session, pet.id, copy.id, dry_run=True)
            shown += [*merged.filled, *merged.conflicts, merged.kept.name, *trial.filled, trial.kept.name]
            synchronised: UpsertReport = await upsert_users(
                session, [UserCreate(name="Eve", email="e@x.org")], by="email"
            )
            kitten, outcome = await upsert_pet(session, PetCreate(name="Kit", external_ref="K1", owner_id=owner.id))
            shown += [str(synchronised.created), kitten.name, outcome]
            erased: User = await anonymise_user(session, owner.id)
            shown.append(erased.name)
    return shown
