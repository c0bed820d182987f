"""The tables and the shapes."""

from datetime import UTC, date, datetime

import pytest
from pydantic import ValidationError
from sqlalchemy import inspect, text, update
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import select

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    PetUpdate,
    User,
    UserCreate,
    UserUpdate,
)
from sqlmodel_alembic_async.services import values


@pytest.mark.parametrize("shape", [UserCreate, UserUpdate, PetCreate, PetUpdate])
@pytest.mark.parametrize("field", ["id", "version", "archived_at", "created_at", "updated_at", "name_key", "nmae"])
def test_a_shape_refuses_unknown_fields(shape: type, field: str) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        shape(**{"name": "Rex", field: 1})


@pytest.mark.parametrize("shape", [UserUpdate, PetUpdate])
def test_a_field_that_is_not_null_refuses_none(shape: type) -> None:
    with pytest.raises(ValidationError):
        shape(name=None)


def test_an_omitted_field_is_left_and_none_clears() -> None:
    assert values.changed_values(PetUpdate(breed=None)) == {"breed": None}


@pytest.mark.parametrize("field", ["sex", "status", "birth_date_estimated"])
def test_a_pet_field_that_is_not_null_refuses_none(field: str) -> None:
    with pytest.raises(ValidationError):
        PetUpdate(**{field: None})


@pytest.mark.parametrize(
    "values",
    [
        {"birth_date_estimated": True},
        {"deceased_on": date(2020, 1, 1)},
        {"deceased_on": date(2020, 1, 1), "status": "deceased", "birth_date": date(2020, 1, 2)},
        {"acquired_on": date(2020, 1, 1)},
    ],
)
def test_fields_that_contradict_each_other_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PetCreate(name="Rex", **values)


@pytest.mark.parametrize(
    "values",
    [
        {"birth_date_estimated": True, "birth_date": None},
        {"deceased_on": date(2020, 1, 1), "status": "missing"},
        {"deceased_on": date(2020, 1, 1), "birth_date": date(2020, 1, 2)},
    ],
)
def test_changes_that_contradict_each_other_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PetUpdate(**values)


def test_changes_that_only_the_row_can_contradict_are_accepted() -> None:
    assert PetUpdate(deceased_on=date(2020, 1, 1)).model_fields_set == {"deceased_on"}


def test_an_error_does_not_quote_the_value() -> None:
    with pytest.raises(ValidationError) as caught:
        UserCreate(name="Ada", email="ada-at-home")

    assert "ada-at-home" not in str(caught.value)


@pytest.mark.parametrize("table", [User, Pet])
def test_a_table_refuses_unknown_fields(table: type) -> None:
    with pytest.raises(TypeError, match="has no field nmae"):
        table(nmae="Rex")


def test_a_row_shows_what_is_set_and_nothing_else() -> None:
    user = User(name="chonky")

    assert repr(user) == str(user) == "User(name='chonky')"
    assert repr(Pet(name="Rex", species="dog", sex="male", version=7)) == "Pet(name='Rex', species='dog', sex='male')"


async def test_a_saved_row_shows_its_id(session: AsyncSession) -> None:
    user = User(name="chonky")
    session.add(user)
    await session.commit()

    assert repr(user) == f"User(id={user.id}, name='chonky')"


async def test_showing_an_expired_row_does_not_touch_the_database(session: AsyncSession, statements: list[str]) -> None:
    user = User(name="chonky")
    session.add(user)
    await session.commit()
    user_id = user.id
    session.expire(user)
    before = len(statements)

    assert repr(user) == f"User(id={user_id})"
    assert len(statements) == before


async def test_a_name_is_enough(session: AsyncSession) -> None:
    session.add_all((User(name="chonky"), Pet(name="phroge")))
    await session.commit()

    pet = (await session.exec(select(Pet))).one()
    assert (pet.sex, pet.status, pet.birth_date_estimated, pet.version) == ("unknown", "active", False, 1)


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


async def test_microseconds_and_early_dates_survive(db: Database) -> None:
    moment = datetime(2020, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    async with db.session() as session:
        session.add(Pet(name="Rex", created_at=moment, birth_date=date(1, 1, 1)))
        await session.commit()

    async with db.session() as session:
        pet = (await session.exec(select(Pet))).one()
    assert (pet.created_at, pet.created_at.tzinfo, pet.birth_date) == (moment, UTC, date(1, 1, 1))


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-01-01 12:00:00+02:00", datetime(2026, 1, 1, 10, tzinfo=UTC)),
        ("2026-01-01T12:00:00.250000-05:30", datetime(2026, 1, 1, 17, 30, 0, 250000, tzinfo=UTC)),
        ("2026-01-01 12:00:00Z", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("2026-01-01 12:00:00", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("2026-01-01T12:00:00", datetime(2026, 1, 1, 12, tzinfo=UTC)),
    ],
)
async def test_a_moment_that_others_wrote_is_read_in_utc(session: AsyncSession, written: str, read: datetime) -> None:
    session.add(Pet(name="Rex"))
    await session.commit()
    await session.exec(text("UPDATE pet SET created_at = :written").bindparams(written=written))
    session.expunge_all()

    pet = (await session.exec(select(Pet))).one()

    assert (pet.created_at, pet.created_at.tzinfo) == (read, UTC)


async def test_a_stale_copy_does_not_overwrite_a_newer_row(db: Database) -> None:
    async with db.session() as first, db.session() as second:
        first.add(Pet(name="Rex"))
        await first.commit()
        stale = (await second.exec(select(Pet))).one()
        await second.commit()
        await first.exec(update(Pet).values(name="Max", version=2))
        await first.commit()

        stale.name = "Old"
        with pytest.raises(StaleDataError):
            await second.commit()


async def test_relationships_load_on_purpose_only(session: AsyncSession) -> None:
    user = User(name="Ada", pets=[Pet(name="Rex"), Pet(name="Max")])
    session.add(user)
    await session.commit()
    session.expire(user)
    await session.refresh(user)

    with pytest.raises(InvalidRequestError, match=r"'User\.pets' is not available"):
        _ = user.pets
    await session.refresh(user, ["pets"])
    assert sorted(pet.name for pet in user.pets) == ["Max", "Rex"]
    await session.refresh(user.pets[0], ["owner"])
    assert user.pets[0].owner is user


async def test_another_owner_does_not_inherit_the_day_of_the_last_one(session: AsyncSession) -> None:
    ada, bob = User(name="Ada"), User(name="Bob")
    pet = Pet(name="Rex", owner=ada, acquired_on=date(2020, 1, 1))
    session.add_all((ada, bob, pet))
    await session.commit()

    pet.owner_id = bob.id
    await session.commit()
    assert pet.acquired_on is None
    pet.owner_id, pet.acquired_on = ada.id, date(2021, 1, 1)
    await session.commit()
    assert pet.acquired_on == date(2021, 1, 1)
    pet.owner_id = None
    await session.commit()
    await session.refresh(pet)
    assert (pet.owner_id, pet.acquired_on) == (None, None)


async def test_text_compares_byte_for_byte(session: AsyncSession) -> None:
    references = ["S1", "s1", "S1\u00e9", "S1e", "\u00df", "ss"]
    session.add_all([Pet(name="Rex", external_ref=reference) for reference in references])
    await session.commit()

    found = (await session.exec(select(Pet).where(Pet.external_ref == "S1"))).all()
    in_order = (await session.exec(select(Pet.external_ref).order_by(Pet.external_ref))).all()
    assert [pet.external_ref for pet in found] == ["S1"]
    assert in_order == sorted(references)
    assert (await session.exec(select(Pet).where(Pet.external_ref == "S1 "))).all() == []


@pytest.mark.parametrize("table", [User, Pet])
def test_every_constraint_and_index_has_a_name(table: type) -> None:
    local = inspect(table).local_table

    assert all(item.name for item in (*local.constraints, *local.indexes))


async def test_an_id_is_never_given_twice(session: AsyncSession) -> None:
    first = Pet(name="Rex")
    session.add(first)
    await session.commit()
    first_id = first.id
    await session.delete(first)
    await session.commit()

    second = Pet(name="Max")
    session.add(second)
    await session.commit()
    assert second.id > first_id
