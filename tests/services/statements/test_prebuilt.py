"""The statements that are built once for their form."""

import pytest
from sqlmodel import select

from sqlmodel_alembic_async import (
    AsyncSession,
    Pet,
    PetCreate,
    User,
    UserCreate,
    count_users,
    create_pets,
    create_user,
    create_users,
    list_users,
)
from sqlmodel_alembic_async.services.statements import prebuilt


async def test_a_search_tells_the_last_characters_of_a_plane_apart(session: AsyncSession) -> None:
    odd = ["\ufffd", "\ufffe", "\uffff", "\U0001fffe", "\U0010ffff", "\ue000", "\ud7ff"]
    await create_users(session, [UserCreate(name=f"Ada {character} Byron") for character in odd])

    for character in odd:
        for part in (character, f"A {character} b"):
            found = (await list_users(session, name_contains=part)).items
            assert [user.name for user in found] == [f"Ada {character} Byron"]
            assert await count_users(session, name_contains=part) == 1


def test_a_statement_is_built_once_for_its_form() -> None:
    names, terms = frozenset({"city"}), frozenset({("name_key", "ge")})

    assert prebuilt.selection(User) is prebuilt.selection(User)
    assert prebuilt.insertion(Pet) is prebuilt.insertion(Pet)
    assert prebuilt.patch(User, names, False) is prebuilt.patch(User, frozenset({"city"}), False)
    assert prebuilt.patch(User, names, True) is not prebuilt.patch(User, names, False)
    assert prebuilt.count(User, terms) is prebuilt.count(User, frozenset({("name_key", "ge")}))


@pytest.mark.parametrize(("expected", "city"), [(1, "Rome"), (2, None)])
async def test_a_versioned_patch_changes_a_row_only_at_that_version(
    session: AsyncSession, expected: int, city: str | None
) -> None:
    ada = await create_user(session, UserCreate(name="Ada"))
    parameters = {"row_id": ada.id, "expected": expected, "new_city": "Rome", "new_updated_at": ada.updated_at}

    await session.exec(prebuilt.patch(User, frozenset({"city"}), True), params=parameters)

    await session.refresh(ada)
    assert (ada.city, ada.version) == (city, 1 if city is None else 2)


@pytest.mark.parametrize(
    ("terms", "found"),
    [
        ({}, ["a", "b", "c"]),
        ({("weight_g", "ge"): 20}, ["b", "c"]),
        ({("weight_g", "le"): 20}, ["a", "b"]),
        ({("weight_g", "lt"): 20}, ["a"]),
        ({("species", "eq"): "dog"}, ["a"]),
        ({("species", "is_"): None}, ["b", "c"]),
        ({("species", "is_not"): None}, ["a"]),
        ({("name_key", "contains"): "c"}, ["c"]),
        ({("weight_g", "ge"): 20, ("name_key", "lt"): "c"}, ["b"]),
    ],
)
async def test_terms_become_conditions_and_their_values(
    session: AsyncSession, terms: prebuilt.Terms, found: list[str]
) -> None:
    values = [("a", "dog", 10), ("b", None, 20), ("c", None, 30)]
    await create_pets(session, [PetCreate(name=name, species=kind, weight_g=grams) for name, kind, grams in values])
    query = select(Pet.name).where(*prebuilt.conditions(Pet, terms)).order_by(Pet.name)

    assert (await session.exec(query, params=prebuilt.values(terms))).all() == found


async def test_a_deletion_takes_only_the_row_that_satisfies_its_conditions(session: AsyncSession) -> None:
    ada, bob = [await create_user(session, UserCreate(name=name)) for name in ("Ada", "Bob")]
    deletion = prebuilt.deletion(User.__table__, User.__table__.c.name == "Ada")

    for row_id in (bob.id, ada.id):
        await session.exec(deletion, params={"row_id": row_id})

    assert (await session.exec(select(User.name))).all() == ["Bob"]
