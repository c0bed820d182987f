"""Rows that may be one, among those that are there and before another one joins them."""

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import event
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    AsyncSession,
    Database,
    DatabaseError,
    DuplicateGroup,
    Pet,
    PetCreate,
    SimilarExistsError,
    User,
    UserCreate,
    UserUpdate,
    archive_user,
    count_pets,
    count_users,
    create_pet,
    create_pets,
    create_user,
    create_users,
    delete_pet,
    delete_user,
    find_duplicate_pets,
    find_duplicate_users,
    list_pets,
    list_users,
    update_user,
)
from sqlmodel_alembic_async.services.duplicates.matching import MAX_GROUP_SIZE

from ...conftest import Statements
from .test_matching import BORN, CHIP, PETS, USERS


async def add_users(session: AsyncSession, *users: dict[str, Any]) -> list[int]:
    return [(await create_user(session, UserCreate(**{"name": "Ada", **values}))).id or 0 for values in users]


async def shown(session: AsyncSession) -> list[tuple[list[int | None], tuple[str, ...], int]]:
    found = [group async for group in find_duplicate_users(session)]
    return [([user.id for user in group.rows], group.reasons, group.score) for group in found]


async def test_users_who_may_be_one_are_found_strongest_first(session: AsyncSession) -> None:
    ids = await add_users(
        session,
        {"postal_code": "98116", "name": "Bob"},
        {"phone": "+49 30 1234567", "email": "ada+pets@example.com"},
        {"postal_code": "98116-1234", "name": "BOB"},
        {"phone": "030 1234567", "email": "ada@example.com", "name": "ADA"},
        {"phone": "030 1234567", "name": "Eve", "postal_code": "98116"},
    )
    await archive_user(session, ids[3])

    assert await shown(session) == [
        ([ids[1], ids[3]], ("name_and_phone", "mailbox", "name_and_email"), 8),
        ([ids[0], ids[2]], ("name_and_postal_code",), 2),
    ]


async def test_pets_that_may_be_one_are_found(session: AsyncSession) -> None:
    owner = (await create_user(session, UserCreate(name="Ada"))).id
    rex = await create_pet(session, PetCreate(name="Rex", owner_id=owner, species="dog", birth_date=BORN))
    twin = await create_pet(session, PetCreate(name="REX", species="Dog", birth_date=BORN, microchip=CHIP))
    await create_pet(session, PetCreate(name="Rex", species="dog"))
    renamed = await create_pet(session, PetCreate(name="Max", notes="985 141 000 123 456"))
    await create_pet(session, PetCreate(name="Leo", microchip="985141000000001", notes=f"brother of {CHIP}"))

    groups = [group async for group in find_duplicate_pets(session)]

    assert groups == [
        DuplicateGroup([twin, renamed], ("microchip",)),
        DuplicateGroup([rex, twin], ("name_species_and_birth_date",)),
    ]
    assert groups[0].rows[0] is twin


async def test_thousands_are_read_in_batches_and_those_found_too(session: AsyncSession, statements: Statements) -> None:
    await create_users(session, (UserCreate(name=f"User {number}", phone="555-1234") for number in range(1500)))
    await create_users(session, (UserCreate(name=f"user {number}", phone="5551234") for number in range(1500)))
    await create_pets(session, (PetCreate(name="Rex", species="dog", breed="Pug") for _ in range(2500)))

    before = len(statements)
    groups = [group async for group in find_duplicate_users(session)]
    taken = len(statements) - before

    assert taken == 4 + 3  # The last batch of keys is empty.
    assert len(groups) == 1500
    assert all(one.name.lower() == other.name.lower() for one, other in (group.rows for group in groups))
    before = len(statements)
    assert [group async for group in find_duplicate_pets(session)] == []
    assert len(statements) - before == 3


async def test_a_group_is_read_when_its_turn_comes(session: AsyncSession) -> None:
    ids = await add_users(
        session,
        {"postal_code": "98116", "phone": "555-1234"},
        {"postal_code": "98116", "phone": "555-1234"},
        {"postal_code": "98116"},
        {"postal_code": "98116"},
    )

    groups = find_duplicate_users(session)
    first = await anext(groups)
    await delete_user(session, ids[1])
    await update_user(session, ids[3], UserUpdate(postal_code="10001"))
    rest = [group async for group in groups]

    assert [user.id for user in first.rows] == ids[:2]
    assert [[user.id for user in group.rows] for group in rest] == [[ids[0], ids[2]]]
    assert rest[0].reasons == ("name_and_postal_code",)


async def test_groups_that_are_none_any_more_are_left_out(session: AsyncSession) -> None:
    ids = await add_users(
        session,
        *({"name": name, "phone": "555-1234", "postal_code": "98116"} for name in ("Ada", "Ada")),
        *({"name": name, "postal_code": "98116"} for name in ("Ada", "Bob", "Bob", "Eve", "Eve")),
    )
    # The first row again in a second group: that one is read later, and so are all behind it.
    groups = find_duplicate_users(session)
    await anext(groups)
    await delete_user(session, ids[0])
    await delete_user(session, ids[1])
    await delete_user(session, ids[3])
    await update_user(session, ids[5], UserUpdate(postal_code="10001"))

    assert [group async for group in groups] == []


async def test_pets_that_got_numbers_meanwhile_are_left_out(session: AsyncSession) -> None:
    owner = (await create_user(session, UserCreate(name="Ada"))).id
    chipped = [PetCreate(name="Rex", owner_id=owner, microchip=f"98514100000000{digit}") for digit in range(2)]
    one, other = [await create_pet(session, data) for data in chipped]
    sure = {"name": "Rex", "owner_id": owner, "birth_date": BORN, "species": "dog"}
    strong = [await create_pet(session, PetCreate(**sure)) for _ in range(2)]

    groups = find_duplicate_pets(session)
    assert (await anext(groups)).rows == strong
    for pet in strong:
        await delete_pet(session, pet.id)

    assert [group async for group in groups] == []
    assert await count_pets(session) == len({one.id, other.id})


async def test_a_program_without_tables_is_told_to_migrate(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        for find in (find_duplicate_users, find_duplicate_pets):
            async with db.reading() as session:
                with pytest.raises(DatabaseError, match="migrate first"):
                    await anext(find(session))


# Before another row joins them.


@pytest.mark.parametrize(("one", "other", "reasons"), USERS)
async def test_a_new_user_is_refused_for_the_same_reasons(
    session: AsyncSession, one: dict[str, Any], other: dict[str, Any], reasons: set[str]
) -> None:
    for there, new in ((one, other), (other, one)):
        [user_id] = await add_users(session, there)
        data = UserCreate(**{"name": "Ada", **new})
        if reasons:
            with pytest.raises(SimilarExistsError) as caught:
                await create_user(session, data, on_similar="error")
            assert [user.id for user in caught.value.candidates] == caught.value.ids == [user_id]
        else:
            await create_user(session, data, on_similar="error")
        await session.rollback()


@pytest.mark.parametrize(("one", "other", "reasons"), PETS)
async def test_a_new_pet_is_refused_for_the_same_reasons(
    session: AsyncSession, one: dict[str, Any], other: dict[str, Any], reasons: set[str]
) -> None:
    named = one.get("name", "Rex") == other.get("name", "Rex")
    for there, new in ((one, other), (other, one)):
        owners = {number: (await create_user(session, UserCreate(name="Ada"))).id for number in (1, 2)}
        shapes = []
        for values in (there, new):
            owner_id = owners[values["owner_id"]] if "owner_id" in values else None
            shapes.append(PetCreate(**{"name": "Rex", **values, "owner_id": owner_id}))
        pet = await create_pet(session, shapes[0])
        # What other pets' notes say is looked for where the name is the same.
        if reasons and (named or "notes" in new):
            with pytest.raises(SimilarExistsError) as caught:
                await create_pet(session, shapes[1], on_similar="error")
            assert caught.value.candidates == [pet]
        else:
            await create_pet(session, shapes[1], on_similar="error")
        await session.rollback()


async def test_to_look_for_similar_rows_takes_one_statement_more(session: AsyncSession, statements: Statements) -> None:
    cost = statements.taken_by
    ada = UserCreate(name="Ada", phone="555-1234", postal_code="98116", email="ada@example.com")
    rex = PetCreate(name="Rex", birth_date=BORN, species="dog", microchip=CHIP)

    assert await cost(create_user(session, ada, on_similar="error")) == 2
    assert await cost(create_pet(session, rex, on_similar="error")) == 2
    assert await cost(create_user(session, UserCreate(name="Ada"), on_similar="error")) == 1  # Nothing to look for.
    assert await cost(create_pet(session, PetCreate(name="Rex"), on_similar="error")) == 1
    assert await cost(create_user(session, UserCreate(name="Ada", phone="555-1234"), on_similar="allow")) == 1
    assert await cost(create_user(session, UserCreate(name="Ada", phone="555-1234"))) == 1
    assert await cost(create_pet(session, PetCreate(name="Rex", birth_date=BORN), on_similar="allow")) == 1


async def test_the_most_similar_row_is_the_first_candidate_and_the_transaction_goes_on(db: Database) -> None:
    async with db.transaction() as session:
        weak, strong, again = await add_users(
            session,
            {"postal_code": "98116"},
            {"postal_code": "98116", "phone": "555-1234"},
            {"postal_code": "98116"},
        )
        with pytest.raises(SimilarExistsError) as caught:
            data = UserCreate(name="ada", postal_code="98116", phone="5551234")
            await create_user(session, data, on_similar="error")
        assert caught.value.candidates[0] in session
        await update_user(session, weak, UserUpdate(city="Rome"))

    assert [user.id for user in caught.value.candidates] == [strong, weak, again]
    async with db.reading() as session:
        assert {user.city for user in (await list_users(session)).items} == {"Rome", None}
        assert await count_users(session) == 3


async def test_candidates_that_are_as_similar_come_by_id(session: AsyncSession) -> None:
    emails = [f"ada+{tag}@example.com" for tag in "bca"]
    ids = await add_users(session, *({"name": f"User {email}", "email": email} for email in emails))

    with pytest.raises(SimilarExistsError) as caught:
        await create_user(session, UserCreate(name="Ada", email="ada@example.com"), on_similar="error")

    assert [user.id for user in caught.value.candidates] == ids


async def test_candidates_can_be_read_when_the_transaction_is_over(db: Database) -> None:
    async with db.transaction() as session:
        await add_users(session, {"email": "ada@example.com", "city": "Rome"})

    with pytest.raises(SimilarExistsError) as caught:
        async with db.transaction() as session:
            await add_users(session, {"name": "Lost"})
            await create_user(session, UserCreate(name="Eve", email="ada+1@example.com"), on_similar="error")

    assert [user.city for user in caught.value.candidates] == ["Rome"]
    assert "Rome" not in str(caught.value) + repr(caught.value)
    assert str(caught.value.ids[0]) in str(caught.value)
    async with db.reading() as session:
        assert await count_users(session) == 1


async def test_a_row_that_holds_the_very_value_is_a_candidate_too(session: AsyncSession) -> None:
    await add_users(session, {"email": "ada@example.com", "external_ref": "S1"})
    pet = await create_pet(session, PetCreate(name="Rex", microchip="123456789"))

    with pytest.raises(SimilarExistsError):
        await create_user(session, UserCreate(name="Eve", email="ADA@example.com"), on_similar="error")
    with pytest.raises(SimilarExistsError) as caught:
        await create_pet(session, PetCreate(name="Max", microchip="123-456-789"), on_similar="error")
    assert caught.value.candidates == [pet]
    with pytest.raises(AlreadyExistsError):
        await create_user(session, UserCreate(name="Eve", external_ref="S1"), on_similar="error")


async def test_what_is_pending_and_what_is_archived_is_looked_at_too(session: AsyncSession) -> None:
    [archived] = await add_users(session, {"phone": "555-1234"})
    await archive_user(session, archived)
    session.add(User(name="ADA", phone="5551234"))

    with pytest.raises(SimilarExistsError) as caught:
        await create_user(session, UserCreate(name="Ada", phone="555 1234"), on_similar="error")

    assert [user.name for user in caught.value.candidates] == ["Ada", "ADA"]
    assert len(await shown(session)) == 1


async def test_a_placeholder_refuses_nobody(session: AsyncSession) -> None:
    walk_in = UserCreate(name="Walk-in", postal_code="98116")
    await create_users(session, [walk_in] * (MAX_GROUP_SIZE - 1))

    with pytest.raises(SimilarExistsError, match="…") as caught:
        await create_user(session, walk_in, on_similar="error")
    assert len(caught.value.candidates) == MAX_GROUP_SIZE - 1
    await create_user(session, walk_in)
    assert len(await shown(session)) == 1
    await create_user(session, walk_in, on_similar="error")
    assert await shown(session) == []


async def test_a_percent_sign_in_an_address_is_no_pattern(session: AsyncSession) -> None:
    await add_users(session, {"email": "a%b@example.com"}, {"name": "Bob", "email": "axb+1@example.com"})

    await create_user(session, UserCreate(name="Eve", email="a_b@example.com"), on_similar="error")
    with pytest.raises(SimilarExistsError) as caught:
        await create_user(session, UserCreate(name="Zoe", email="a%b+1@example.com"), on_similar="error")

    assert [user.name for user in caught.value.candidates] == ["Ada"]


async def test_bad_input_is_refused_before_any_statement(session: AsyncSession, statements: Statements) -> None:
    for on_similar in ("merge", "", None, True):
        with pytest.raises(ValueError, match='"allow" or "error"'):
            await create_user(session, UserCreate(name="Ada"), on_similar=on_similar)
        with pytest.raises(ValueError, match='"allow" or "error"'):
            await create_pet(session, PetCreate(name="Rex"), on_similar=on_similar)
    with pytest.raises(TypeError, match="expected UserCreate"):
        await create_user(session, PetCreate(name="Rex"), on_similar="error")
    with pytest.raises(TypeError, match="expected PetCreate"):
        await create_pet(session, {"name": "Rex"}, on_similar="error")
    with pytest.raises(ValidationError):
        await create_user(session, UserCreate(name="Ada").model_copy(update={"phone": "1"}), on_similar="error")

    assert len(statements) == 0


async def test_similar_rows_are_found_by_indexes(db: Database, engine_name: str) -> None:
    users = (UserCreate(name=f"User {n}", email=f"user{n}@gmail.com", phone="555-1234") for n in range(5000))
    pets = (PetCreate(name=f"Rex {n}", microchip=f"{985141000000000 + n}", birth_date=BORN) for n in range(5000))
    async with db.transaction() as session:
        await create_users(session, users)
        await create_pets(session, pets)
    asked: list[tuple[str, Any]] = []

    def note(connection: object, cursor: object, statement: str, parameters: object, *rest: object) -> None:
        asked.append((statement, parameters))

    event.listen(db.engine.sync_engine, "before_cursor_execute", note)
    async with db.transaction() as session:
        new = UserCreate(name="User 7000", email="user7000@example.com", phone="555-1234")
        await create_user(session, new, on_similar="error")
        data = PetCreate(name="Rex 7000", species="dog", microchip="985141000007000", birth_date=date(2020, 1, 1))
        await create_pet(session, data, on_similar="error")
    event.remove(db.engine.sync_engine, "before_cursor_execute", note)

    explain = "EXPLAIN QUERY PLAN " if engine_name == "sqlite" else "EXPLAIN "
    by_table = {Pet: ("ix_pet_name_key_id", "uq_pet_microchip"), User: ("ix_user_name_key_id", "uq_user_email")}
    plans = []
    async with db.engine.connect() as connection:
        if engine_name == "postgresql":
            await connection.exec_driver_sql("ANALYZE")
        for statement, parameters in asked:
            if statement.startswith("SELECT"):
                plans.append(str((await connection.exec_driver_sql(explain + statement, parameters)).all()))
    assert len(plans) == len(by_table)
    for plan, indexes in zip(plans, (by_table[User], by_table[Pet]), strict=True):
        if engine_name == "sqlite":  # It numbers the indexes that belong to constraints.
            indexes = (indexes[0], "sqlite_autoindex_")
        assert all(index in plan for index in indexes), plan


async def test_nothing_is_merged_by_itself(session: AsyncSession) -> None:
    await create_pets(session, [PetCreate(name="Rex", species="dog", birth_date=BORN)] * 3)

    groups = [group async for group in find_duplicate_pets(session)]

    assert [len(group.rows) for group in groups] == [3]
    assert [pet.version for pet in (await list_pets(session)).items] == [1, 1, 1]
