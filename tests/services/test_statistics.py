"""Figures about pets."""

from datetime import date

import pytest
from pydantic import ValidationError

from sqlmodel_alembic_async import (
    AsyncSession,
    PetCreate,
    PetStatistics,
    UserCreate,
    archive_pet,
    create_pet,
    create_pets,
    create_user,
    pet_statistics,
)

from ..conftest import Statements


async def test_every_pet_is_counted_in_every_figure(session: AsyncSession, statements: Statements) -> None:
    ada = await create_user(session, UserCreate(name="Ada"))
    await create_pets(
        session,
        [
            PetCreate(name="Rex", species="dog", sex="male", owner_id=ada.id, birth_date=date(2020, 12, 31)),
            PetCreate(name="Max", species="dog", status="missing", birth_date=date(2021, 1, 1)),
            PetCreate(name="Mia", species="cat", sex="female", microchip="985141000123456"),
            PetCreate(name="Leo", species="ant", sex="male", birth_date=date(2020, 1, 1), owner_id=ada.id),
            PetCreate(name="Egg", sex="male", birth_date=date.min),
        ],
    )
    hidden = await create_pet(session, PetCreate(name="Hidden", species="owl"))
    await archive_pet(session, hidden.id)
    before = len(statements)

    figures = await pet_statistics(session)

    assert len(statements) == before + 1
    assert figures == PetStatistics(
        total=5,
        by_species={"dog": 2, "ant": 1, "cat": 1, None: 1},
        by_status={"active": 4, "missing": 1, "deceased": 0},
        by_sex={"male": 3, "female": 1, "unknown": 1},
        with_owner=2,
        without_owner=3,
        chipped=1,
        unchipped=4,
        born_per_year={1: 1, 2020: 2, 2021: 1, None: 1},
    )
    assert list(figures.by_species) == ["dog", "ant", "cat", None]
    assert list(figures.by_status) == ["active", "missing", "deceased"]
    assert list(figures.by_sex) == ["male", "female", "unknown"]
    assert list(figures.born_per_year) == [1, 2020, 2021, None]


async def test_the_filters_of_a_list_narrow_the_figures(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada"))
    await create_pet(session, PetCreate(name="Rex", species="dog", owner_id=ada.id))
    await create_pet(session, PetCreate(name="Mia", species="cat"))
    hidden = await create_pet(session, PetCreate(name="Old", species="cat"))
    await archive_pet(session, hidden.id)

    assert (await pet_statistics(session, owner_id=ada.id)).by_species == {"dog": 1}
    assert (await pet_statistics(session, archived=None, species="Cat")).total == 2
    assert (await pet_statistics(session, name_prefix="m", ownerless=True)).without_owner == 1
    with pytest.raises(TypeError, match="unknown filter colour"):
        await pet_statistics(session, colour="red")
    with pytest.raises(ValidationError):
        await pet_statistics(session, sex="m")


async def test_no_pets_have_figures_too(session: AsyncSession) -> None:
    figures = await pet_statistics(session)

    assert figures == PetStatistics(
        total=0,
        by_species={},
        by_status={"active": 0, "missing": 0, "deceased": 0},
        by_sex={"male": 0, "female": 0, "unknown": 0},
        with_owner=0,
        without_owner=0,
        chipped=0,
        unchipped=0,
        born_per_year={},
    )
    assert figures._repr_html_().endswith("<p>no pets</p></div>")


async def test_species_are_told_apart_byte_by_byte(session: AsyncSession) -> None:
    await create_pets(session, [PetCreate(name="Rex", species=species) for species in ("chèvre", "chevre", "ß", "ss")])

    figures = await pet_statistics(session)

    assert list(figures.by_species.items()) == [("chevre", 1), ("chèvre", 1), ("ss", 1), ("ß", 1)]


@pytest.mark.parametrize(("number", "last"), [(20, "species 20"), (21, "2 others")])
async def test_twenty_species_are_all_shown_and_of_more_the_rest_is_a_sum(
    session: AsyncSession, number: int, last: str
) -> None:
    pets = [PetCreate(name="Rex", species=f"species {n:02}") for n in range(1, number + 1)]
    await create_pets(session, [*pets, *pets[:18]])

    table = (await pet_statistics(session))._repr_html_()

    assert last in table
    assert ("others" in table) is (number > 20)
