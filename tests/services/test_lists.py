"""Pages, counts and streams of users and pets."""

from datetime import date

import pytest
from pydantic import ValidationError

from sqlmodel_alembic_async import (
    AsyncSession,
    PetCreate,
    UserCreate,
    UserUpdate,
    archive_pet,
    count_pets,
    count_users,
    create_pet,
    create_user,
    create_users,
    delete_user,
    list_pets,
    list_users,
    stream_pets,
    stream_users,
    update_user,
)


async def test_filters_narrow_lists_counts_and_streams_alike(session: AsyncSession) -> None:
    owner = await create_user(session, UserCreate(name="Ada"))
    await create_pet(session, PetCreate(name="Rex", owner_id=owner.id, species="dog", breed="Pug", sex="male"))
    await create_pet(session, PetCreate(name="Mia", species="cat", birth_date=date(2020, 1, 1), microchip="123456789"))
    await create_pet(session, PetCreate(name="Old", status="missing", birth_date=date(2010, 1, 1)))
    hidden = await create_pet(session, PetCreate(name="Hidden"))
    await archive_pet(session, hidden.id)

    for filters, names in (
        ({}, ["Mia", "Old", "Rex"]),
        ({"archived": True}, ["Hidden"]),
        ({"archived": None}, ["Hidden", "Mia", "Old", "Rex"]),
        ({"owner_id": owner.id}, ["Rex"]),
        ({"owner_id": None}, ["Mia", "Old", "Rex"]),
        ({"ownerless": True}, ["Mia", "Old"]),
        ({"ownerless": False}, ["Rex"]),
        ({"species": " DOG "}, ["Rex"]),
        ({"species": None}, ["Mia", "Old", "Rex"]),
        ({"species_known": False}, ["Old"]),
        ({"species_known": True}, ["Mia", "Rex"]),
        ({"breed": "Pug"}, ["Rex"]),
        ({"breed": "pug"}, []),
        ({"breed_known": False}, ["Mia", "Old"]),
        ({"sex": "male"}, ["Rex"]),
        ({"status": "missing"}, ["Old"]),
        ({"born_from": date(2020, 1, 1)}, ["Mia"]),
        ({"born_until": date(2010, 1, 1)}, ["Old"]),
        ({"born_from": date(2010, 1, 2), "born_until": date(2019, 12, 31)}, []),
        ({"microchipped": True}, ["Mia"]),
        ({"microchipped": False}, ["Old", "Rex"]),
        ({"name_prefix": "m", "name_contains": "I"}, ["Mia"]),
    ):
        assert [pet.name for pet in (await list_pets(session, **filters)).items] == names, filters
        assert [pet.name async for pet in stream_pets(session, **filters)] == names, filters
        assert await count_pets(session, **filters) == len(names), filters


@pytest.mark.parametrize(
    "filters",
    [
        {"owner_id": 2**63},
        {"owner_id": True},
        {"ownerless": 1},
        {"species_known": "yes"},
        {"sex": "UNKNOWN"},
        {"status": "dead"},
        {"species": 7},
        {"species": ""},
        {"name_prefix": "a\0"},
        {"name_contains": "\ud800"},
        {"name_prefix": "x" * 101},
        {"born_from": "yesterday"},
        {"archived": "no"},
    ],
)
async def test_a_bad_filter_value_is_refused(session: AsyncSession, filters: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        await list_pets(session, **filters)
    with pytest.raises(ValidationError):
        await count_pets(session, **filters)
    with pytest.raises(ValidationError):
        await anext(stream_pets(session, **filters))


async def test_names_are_searched_in_any_case_and_literally(session: AsyncSession) -> None:
    names = ["Zo\u00eb", "ZOE\u0308 Smith", "100%", "100 percent", "a_b", "axb", "back\\slash", "\U0010ffffx"]
    await create_users(session, [UserCreate(name=name) for name in names])

    async def found(**filters: str) -> set[str]:
        return {user.name for user in (await list_users(session, **filters)).items}

    assert await found(name_prefix="zo\u00eb") == {"Zo\u00eb", "ZO\u00cb Smith"}
    assert await found(name_prefix="zo\u00eb ") == {"ZO\u00cb Smith"}
    assert await found(name_prefix="100%") == {"100%"}
    assert await found(name_contains="%") == {"100%"}
    assert await found(name_contains="_") == {"a_b"}
    assert await found(name_contains="K\\S") == {"back\\slash"}
    assert await found(name_prefix="\U0010ffff") == {"\U0010ffffx"}
    assert await found() == {"Zo\u00eb", "ZO\u00cb Smith", *names[2:]}


async def test_an_unknown_filter_is_a_type_error(session: AsyncSession) -> None:
    for work in (list_users(session, species="dog"), count_users(session, species="dog")):
        with pytest.raises(TypeError, match="unknown filter species"):
            await work
    with pytest.raises(TypeError, match="unknown filter species"):
        await anext(stream_users(session, species="dog"))


async def test_a_stream_gives_every_user_once(session: AsyncSession) -> None:
    await create_users(session, (UserCreate(name=f"User {number % 7}") for number in range(2100)))

    ids = [user.id async for user in stream_users(session)]
    some = [user.id async for user in stream_users(session, order_by="-id", name_prefix="user 3")]
    assert len(ids) == len(set(ids)) == 2100
    assert some == sorted(some, reverse=True)
    assert len(some) == 300


async def test_what_a_stream_yields_can_be_changed_meanwhile(session: AsyncSession) -> None:
    await create_users(session, (UserCreate(name=f"User {number}") for number in range(1500)))

    async for user in stream_users(session, order_by="id"):
        await update_user(session, user.id, UserUpdate(city="Rome"))
        if user.id % 500 == 0:
            await delete_user(session, user.id)

    assert {user.city async for user in stream_users(session)} == {"Rome"}
