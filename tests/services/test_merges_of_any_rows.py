"""Merges of any two users and any two pets: nothing is lost, and the report tells all."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterator
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from sqlalchemy.engine import URL
from sqlmodel import SQLModel

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    MergeReport,
    Pet,
    PetCreate,
    User,
    UserCreate,
    create_pet,
    create_user,
    merge_pets,
    merge_users,
)

BORN, LATER, DIED = date(2015, 1, 1), date(2018, 1, 1), date(2020, 1, 1)
Values = dict[str, Any]
Work = Callable[[AsyncSession], Awaitable[None]]
TOGETHER = ({"address", "city", "postal_code"}, {"birth_date", "birth_date_estimated"}, {"owner_id", "acquired_on"})
TOGETHER += ({"status", "deceased_on"},)

USERS = st.fixed_dictionaries(
    {"name": st.sampled_from(["Ada", "ADA", "Ada Byron"])},
    optional={
        "email": st.sampled_from(["ada@example.com", "countess@example.com"]),
        "phone": st.sampled_from(["12345", "1 23 45"]),
        "address": st.sampled_from(["1 Main St", "2 Main St"]),
        "city": st.sampled_from(["Rome", "rome"]),
        "postal_code": st.sampled_from(["00100", "100"]),
        "notes": st.sampled_from(["a", "b", "a\nb"]),
        "external_ref": st.sampled_from(["S1", "s1"]),
    },
)
DAYS = st.sampled_from([BORN, LATER, DIED, None])


def agreeing(pet: Values) -> Values:
    """Leave out what contradicts the rest."""
    if pet["status"] != "deceased" or (pet["deceased_on"] or DIED) < (pet["birth_date"] or BORN):
        del pet["deceased_on"]
    if pet["birth_date"] is None:
        pet.pop("birth_date_estimated", None)
    if "owner_id" not in pet:
        pet.pop("acquired_on", None)
    return pet


PETS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["Rex", "REX"]),
        "birth_date": DAYS,
        "status": st.sampled_from(["active", "missing", "deceased", "deceased", "deceased"]),
        "deceased_on": DAYS,
    },
    optional={
        "owner_id": st.sampled_from([0, 1]),  # The one or the other of two users.
        "acquired_on": DAYS,
        "species": st.sampled_from(["dog", "cat"]),
        "sex": st.sampled_from(["male", "female", "unknown"]),
        "neutered": st.booleans(),
        "birth_date_estimated": st.booleans(),
        "weight_g": st.sampled_from([1, 4200]),
        "microchip": st.sampled_from(["985141000123456", "ABCDEF1234"]),
        "notes": st.sampled_from(["a", "b"]),
        "external_ref": st.sampled_from(["S1", "s1"]),
    },
).map(agreeing)


def are_distinct(pair: tuple[Values, Values]) -> bool:
    one, other = pair
    return not any(name in one and one[name] == other.get(name) for name in ("email", "microchip", "external_ref"))


PAIRS_OF_USERS = st.tuples(USERS, USERS).filter(are_distinct)
PAIRS_OF_PETS = st.tuples(PETS, PETS).filter(are_distinct)


def is_blank(values: Values, name: str) -> bool:
    if name == "birth_date_estimated":
        return not values["birth_date"]
    return values[name] in (None, "unknown")


def check(shape: type[UserCreate] | type[PetCreate], report: MergeReport[Any], ours: Values, theirs: Values) -> None:
    """See that only blanks of the winner are filled, and that the report tells what became of the loser's values."""
    merged = report.kept.model_dump()
    fields = list(shape.model_fields)
    said = [name for name in fields if not is_blank(theirs, name)]
    shape(**{name: merged[name] for name in fields})
    assert all(merged[name] == ours[name] for name in fields if not is_blank(ours, name))
    assert report.filled == {name: theirs[name] for name in fields if merged[name] != ours[name]}
    assert report.conflicts == {name: (ours[name], theirs[name]) for name in said if merged[name] != theirs[name]}
    assert merged["version"] == ours["version"] + bool(report.filled)
    assert all(report.filled.keys().isdisjoint(group) for group in TOGETHER if group & report.conflicts.keys())
    for name in report.conflicts:
        together = next((group for group in TOGETHER if name in group), {name})
        says_otherwise = any(not is_blank(ours, each) for each in together & report.conflicts.keys())
        assert says_otherwise or (
            theirs["birth_date"] > merged["deceased_on"]
            if "birth_date" in together
            else "deceased_on" in together and theirs["deceased_on"] < merged["birth_date"]
        )


async def everything(session: AsyncSession, table: type[SQLModel]) -> dict[int, Values]:
    found = (await session.exec(sa.select(sa.inspect(table).local_table))).mappings()
    return {row["id"]: dict(row) for row in found}


@pytest.fixture
def run(migrated_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Work], None]]:
    """Runs work in a session that is not committed."""
    set_hypothesis_home_dir(tmp_path_factory.getbasetemp() / "hypothesis")  # Nothing of it stays in the checkout.

    async def unit(work: Work) -> None:
        async with db.session() as session:
            await work(session)

    with asyncio.Runner() as runner:
        db = Database(migrated_url)
        yield lambda work: runner.run(unit(work))
        runner.run(db.dispose())


def test_no_merge_of_users_loses_a_pet_or_a_value_of_the_winner(run: Callable[[Work], None]) -> None:
    @settings(max_examples=80, deadline=None, database=None)
    @given(pair=PAIRS_OF_USERS, owners=st.lists(st.sampled_from([0, 1, 2, None]), max_size=4))
    def merge(pair: tuple[Values, Values], owners: list[int | None]) -> None:
        async def work(session: AsyncSession) -> None:
            rows = [await create_user(session, UserCreate(**values)) for values in (*pair, {"name": "Bob"})]
            kept, dropped, bob = [row.id for row in rows]
            ids = [None if owner is None else rows[owner].id for owner in owners]
            days = {None: None} | {row.id: BORN for row in rows}
            shapes = [PetCreate(name="Rex", owner_id=owner, acquired_on=days[owner]) for owner in ids]
            pets = [await create_pet(session, shape) for shape in shapes]
            users, before = await everything(session, User), await everything(session, Pet)

            dry = await merge_users(session, kept, dropped, dry_run=True)
            assert (await everything(session, User), await everything(session, Pet)) == (users, before)
            report = await merge_users(session, kept, dropped)

            assert dry == dataclasses.replace(report, dry_run=True)
            check(UserCreate, report, users[kept], users[dropped])
            assert await everything(session, User) == {kept: report.kept.model_dump(), bob: users[bob]}
            after = await everything(session, Pet)
            assert after == {pet.id: pet.model_dump() for pet in pets}
            for pet_id, pet in before.items():
                if pet["owner_id"] == dropped:
                    pet |= {"owner_id": kept, "version": 2, "updated_at": after[pet_id]["updated_at"]}
            assert after == before
            assert report.moved_pets == ids.count(dropped)

        run(work)

    merge()


def test_no_merge_of_pets_loses_a_value_of_either(run: Callable[[Work], None]) -> None:
    @settings(max_examples=150, deadline=None, database=None)
    @given(pair=PAIRS_OF_PETS)
    def merge(pair: tuple[Values, Values]) -> None:
        async def work(session: AsyncSession) -> None:
            users = [(await create_user(session, UserCreate(name="Ada"))).id for _ in range(2)]
            for values in pair:
                values |= {"owner_id": users[values["owner_id"]]} if "owner_id" in values else {}
            kept, dropped = [(await create_pet(session, PetCreate(**values))).id for values in pair]
            before = await everything(session, Pet)

            dry = await merge_pets(session, kept, dropped, dry_run=True)
            assert await everything(session, Pet) == before
            report = await merge_pets(session, kept, dropped)

            assert (dry.filled, dry.conflicts) == (report.filled, report.conflicts)
            check(PetCreate, report, before[kept], before[dropped])
            assert await everything(session, Pet) == {kept: report.kept.model_dump()}

        run(work)

    merge()
