"""A row that is added or changed by hand is validated and normalised as a shape is."""

from datetime import date

import pytest
from pydantic import ValidationError
from sqlmodel import select

from sqlmodel_alembic_async import AsyncSession, Database, Pet, User


@pytest.mark.parametrize("table", [User, Pet])
def test_a_table_refuses_unknown_fields(table: type) -> None:
    with pytest.raises(TypeError, match="has no field nmae"):
        table(nmae="Rex")


async def test_a_row_is_normalised_on_its_way_in(session: AsyncSession) -> None:
    user = User(name=" Zoe\u0308 ", email="ZOE@Example.com", city="")
    session.add(user)
    await session.commit()

    assert (user.name, user.email, user.city, user.name_key) == ("Zo\u00eb", "zoe@example.com", None, "zo\u00eb")
    await session.refresh(user)
    assert (user.name, user.email, user.city, user.name_key) == ("Zo\u00eb", "zoe@example.com", None, "zo\u00eb")


async def test_a_changed_row_is_normalised_and_counted(session: AsyncSession) -> None:
    pet = Pet(name="Rex")
    session.add(pet)
    await session.commit()
    created = pet.updated_at

    pet.name = " Max "
    await session.commit()

    await session.refresh(pet)
    assert (pet.name, pet.name_key, pet.version) == ("Max", "max", 2)
    assert pet.updated_at > created == pet.created_at


async def test_an_unchanged_row_is_not_written(session: AsyncSession, statements: list[str]) -> None:
    user = User(name="Ada")
    session.add(user)
    await session.commit()
    await session.refresh(user, ["pets"])
    before = len(statements)

    user.pets.append(Pet(name="Rex"))
    user.name = "Ada"
    await session.commit()

    assert [text.split()[0] for text in statements.texts[before:]] == ["INSERT"]
    assert user.version == 1


async def test_a_row_of_a_session_that_expires_is_validated_whole(db: Database) -> None:
    async with AsyncSession(db.engine, expire_on_commit=True) as session:
        pet = Pet(name="Rex", status="deceased", deceased_on=date(2020, 1, 1))
        session.add(pet)
        await session.commit()

        pet.status = "active"
        with pytest.raises(ValidationError, match="deceased_on needs the status deceased"):
            await session.commit()


async def test_an_invalid_row_is_refused_by_plain_add(session: AsyncSession) -> None:
    session.add(Pet(name=""))

    with pytest.raises(ValidationError, match="must not be blank"):
        await session.commit()

    await session.rollback()
    assert (await session.exec(select(Pet))).all() == []
