"""The tables and the shapes."""

import io
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime

import pytest
from sqlalchemy import CheckConstraint, PrimaryKeyConstraint, UniqueConstraint, inspect, text, update
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import select

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    PetUpdate,
    User,
    create_pet,
    import_pets,
    merge_pets,
    update_pet,
)


def test_a_row_shows_what_is_set_and_nothing_else() -> None:
    user = User(name="chonky")

    assert repr(user) == str(user) == "User(name='chonky')"
    assert repr(Pet(name="Rex", species="dog", sex="male", version=7)) == "Pet(name='Rex', species='dog', sex='male')"


async def test_a_row_has_no_id_before_it_is_flushed(session: AsyncSession) -> None:
    user = User(name="chonky")
    session.add(user)
    assert user.id is None

    await session.flush()

    assert isinstance(user.id, int)


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


@pytest.fixture
def move_to(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Moves this process to another time zone."""

    def move(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


async def test_a_pet_born_today_stays_valid_in_a_place_where_it_is_yesterday(
    session: AsyncSession, move_to: Callable[[str], None]
) -> None:
    move_to("Etc/GMT-14")  # This is UTC+14.
    born = date.today()
    pet = await create_pet(session, PetCreate(name="Rex", birth_date=born, external_ref="S1"))
    twin = await create_pet(session, PetCreate(name="Rex", status="deceased", deceased_on=born))

    move_to("Etc/GMT+12")
    assert born > date.today()
    pet.name, twin.name = "Max", "Moritz"
    await update_pet(session, pet.id, PetUpdate(birth_date=born))
    report = await import_pets(session, io.StringIO(f"external_ref,name,birth_date\nS1,Leo,{born}\n"))
    await merge_pets(session, twin.id, pet.id)

    assert (report.updated, twin.name, twin.birth_date, twin.deceased_on) == (1, "Moritz", born, born)


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


async def test_a_pet_with_another_name_has_the_same_owner_since_the_same_day(session: AsyncSession) -> None:
    pet = Pet(name="Rex", owner=User(name="Ada"), acquired_on=date(2020, 1, 1))
    session.add(pet)
    await session.commit()

    pet.name = "Max"
    await session.commit()

    assert (pet.name, pet.acquired_on) == ("Max", date(2020, 1, 1))


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


OPTIONS = {
    "sqlite_autoincrement": True,
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
}


@pytest.mark.parametrize(
    ("table", "unique", "checks", "indexes"),
    [
        (
            User,
            {"pk_user": ["id"], "uq_user_external_ref": ["external_ref"], "uq_user_email": ["email"]},
            {"ck_user_name": "name <> ''", "ck_user_version": "version > 0"},
            {
                "ix_user_name_key_id": ["name_key", "id"],
                "ix_user_created_at_id": ["created_at", "id"],
                "ix_user_updated_at_id": ["updated_at", "id"],
                "ix_user_phone": ["phone"],
            },
        ),
        (
            Pet,
            {"pk_pet": ["id"], "uq_pet_external_ref": ["external_ref"], "uq_pet_microchip": ["microchip"]},
            {
                "ck_pet_name": "name <> ''",
                "ck_pet_version": "version > 0",
                "ck_pet_sex": "sex IN ('male', 'female', 'unknown')",
                "ck_pet_status": "status IN ('active', 'missing', 'deceased')",
                "ck_pet_weight_g": "weight_g > 0",
                "ck_pet_birth_date_estimated": "birth_date IS NOT NULL OR NOT birth_date_estimated",
                "ck_pet_deceased_on": "deceased_on IS NULL OR status = 'deceased'",
                "ck_pet_deceased_on_birth_date": "deceased_on >= birth_date",
                "ck_pet_acquired_on": "acquired_on IS NULL OR owner_id IS NOT NULL",
            },
            {
                "ix_pet_name_key_id": ["name_key", "id"],
                "ix_pet_created_at_id": ["created_at", "id"],
                "ix_pet_updated_at_id": ["updated_at", "id"],
                "ix_pet_owner_id": ["owner_id"],
                "ix_pet_species": ["species"],
            },
        ),
    ],
)
def test_a_table_has_these_rules_and_indexes(
    table: type, unique: dict[str, list[str]], checks: dict[str, str], indexes: dict[str, list[str]]
) -> None:
    local = inspect(table).local_table

    keys = [item for item in local.constraints if isinstance(item, PrimaryKeyConstraint | UniqueConstraint)]
    rules = [item for item in local.constraints if isinstance(item, CheckConstraint)]
    assert {item.name: [column.name for column in item.columns] for item in keys} == unique
    assert {item.name: str(item.sqltext) for item in rules} == checks
    assert {item.name: [column.name for column in item.columns] for item in local.indexes} == indexes
    assert not any(item.unique for item in local.indexes)
    assert dict(local.kwargs) == OPTIONS


def test_a_pets_owner_is_a_user_who_is_not_deleted_before_it() -> None:
    [key] = inspect(Pet).local_table.foreign_key_constraints

    assert (key.name, key.ondelete) == ("fk_pet_owner_id_user", "RESTRICT")
    assert [(element.parent.name, element.target_fullname) for element in key.elements] == [("owner_id", "user.id")]
    assert not inspect(User).local_table.foreign_key_constraints


async def test_every_text_is_stored_as_long_as_its_field_allows(session: AsyncSession) -> None:
    texts = {"name": 100, "address": 255, "city": 80, "postal_code": 16, "notes": 1_000_000, "external_ref": 64}
    email = "x" * 64 + "@" + "y" * 63 + "." + "y" * 63 + "." + "y" * 57 + ".com"
    user = User(email=email, phone="1" * 32, **{field: "\U0001f43e" * length for field, length in texts.items()})
    texts = {"name": 100, "species": 50, "breed": 100, "color": 50, "notes": 1_000_000, "external_ref": 64}
    pet = Pet(
        microchip="985141000123456",
        status="deceased",
        weight_g=2_147_483_647,
        sex="unknown",
        **{field: "\U0001f43e" * length for field, length in texts.items()},
    )
    longest_key = Pet(name="\ufdfa" * 17)
    session.add_all((user, pet, longest_key))
    given = [row.model_dump() for row in (user, pet, longest_key)]
    await session.commit()

    for row, before in zip((user, pet, longest_key), given, strict=True):
        await session.refresh(row)
        set_before = {field: value for field, value in before.items() if value is not None}
        assert set_before.items() <= row.model_dump().items()
    assert len(longest_key.name_key) == 300


async def test_a_row_shows_neither_its_bookkeeping_nor_what_is_as_it_was_declared(session: AsyncSession) -> None:
    pet = Pet(name="Rex", birth_date_estimated=False, sex="unknown", status="missing", neutered=False, notes="shy")
    session.add(pet)
    await session.commit()

    assert repr(pet) == f"Pet(id={pet.id}, name='Rex', neutered=False, status='missing', notes='shy')"


async def test_deleting_a_user_loads_no_pets_and_is_refused_by_the_database(
    session: AsyncSession, statements: list[str]
) -> None:
    user = User(name="Ada", pets=[Pet(name="Rex")])
    session.add(user)
    await session.commit()
    before = len(statements)

    await session.delete(user)
    with pytest.raises(IntegrityError):
        await session.commit()
    await session.rollback()

    assert [text.split()[0] for text in statements.texts[before:]] == ["DELETE"]


@pytest.mark.parametrize(("sex", "status"), [("male", "missing"), ("female", "deceased"), ("unknown", "active")])
async def test_every_sex_and_status_is_stored(session: AsyncSession, sex: str, status: str) -> None:
    session.add(Pet(name="Rex", sex=sex, status=status))
    await session.commit()
    session.expunge_all()

    pet = (await session.exec(select(Pet))).one()
    assert (pet.sex, pet.status) == (sex, status)


async def test_an_owner_loads_on_purpose_only(session: AsyncSession) -> None:
    pet = Pet(name="Rex", owner=User(name="Ada"))
    session.add(pet)
    await session.commit()
    session.expire(pet)
    await session.refresh(pet)

    with pytest.raises(InvalidRequestError, match=r"'Pet\.owner' is not available"):
        _ = pet.owner


def test_a_pet_that_is_given_an_owner_is_one_of_the_owners_pets() -> None:
    ada = User(name="Ada")

    pet = Pet(name="Rex", owner=ada)

    assert ada.pets == [pet]


@pytest.mark.parametrize("table", [User, Pet])
def test_a_row_is_made_of_values_to_validate_of_which_a_name_is_enough(table: type[User] | type[Pet]) -> None:
    row = table.model_validate({"name": "Rex"})

    assert (row.name, row.version) == ("Rex", 1)
    assert (row.created_at, row.updated_at, row.name_key) == (None, None, None)
