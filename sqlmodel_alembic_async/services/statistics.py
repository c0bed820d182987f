"""Statistics about pets."""

from collections import Counter
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR
from functools import lru_cache
from typing import Any, get_args

import sqlalchemy as sa
from sqlmodel import col, func
from sqlmodel.ext.asyncio.session import AsyncSession
from typing_extensions import Unpack

from ..display import Table
from ..fields import Sex, Status
from ..models import Pet
from ..plain_signatures import spell_out
from .statements import execution, prebuilt
from .statements.filters import PetFilters, pet_terms

_MAX_SPECIES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class PetStatistics:
    """The number of pets, in total and by group; IPython shows it as a table.

    Attributes:
        total: The number of pets that match the filters.
        by_species: The most frequent species first; the key None is for pets without a species.
        by_status: Every status, also with 0.
        by_sex: Every sex, also with 0.
        with_owner: Pets with an owner.
        without_owner: Pets without an owner.
        chipped: Pets with a microchip.
        unchipped: Pets without a microchip.
        born_per_year: By year; the key None is for pets without a birth date.

    """

    total: int
    by_species: dict[str | None, int]
    by_status: dict[Status, int]
    by_sex: dict[Sex, int]
    with_owner: int
    without_owner: int
    chipped: int
    unchipped: int
    born_per_year: dict[int | None, int]

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(self._table().text())

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> Table:
        groups: dict[str, dict[Any, int]] = {
            "species": _most_frequent(self.by_species),
            "status": dict(self.by_status),
            "sex": dict(self.by_sex),
            "owner": {"yes": self.with_owner, "no": self.without_owner},
            "microchip": {"yes": self.chipped, "no": self.unchipped},
            "born in": dict(self.born_per_year),
        }
        body = [
            ("" if index else group, "not known" if key is None else str(key), number)
            for group, numbers in groups.items()
            for index, (key, number) in enumerate(numbers.items())
        ]
        return Table(("", "", "pets"), body, f"{self.total or 'no'} pet{'s' * (self.total != 1)}")


@spell_out(PetFilters, archived=False)
async def pet_statistics(session: AsyncSession, **filters: Unpack[PetFilters]) -> PetStatistics:
    """Return statistics about the pets that match the filters.

    It is one statement, so all numbers are of the same moment. It reads every matching pet.

    Args:
        session: The session; pending changes are flushed first.
        **filters: The filters of list_pets(); archived pets are left out unless asked for.

    Raises:
        TypeError: A filter is unknown.
        ValidationError: The value of a filter is invalid.
        DatabaseError: The database failed, or the session is closed or used by another task.

    """
    terms = pet_terms(filters)
    found: list[Any] = await execution.fetch_all(session, _query(frozenset(terms)), prebuilt.values(terms))
    species = {row.key: row.pets for row in found if row.part == "species"}
    years: Counter[int | None] = Counter()
    for row in found:
        if row.part == "born":
            years[_year(row.year)] += row.pets
    kinds = [row for row in found if row.part == "kind"]
    total, owned, chipped = (sum(getattr(row, name) for row in kinds) for name in ("pets", "owned", "chipped"))
    return PetStatistics(
        total=total,
        by_species=dict(sorted(species.items(), key=lambda item: (-item[1], item[0] is None, item[0]))),
        by_status={status: sum(row.pets for row in kinds if row.key == status) for status in get_args(Status)},
        by_sex={sex: sum(row.pets for row in kinds if row.sex == sex) for sex in get_args(Sex)},
        with_owner=owned,
        without_owner=total - owned,
        chipped=chipped,
        unchipped=total - chipped,
        born_per_year=dict(sorted(years.items(), key=lambda item: (item[0] is None, item[0]))),
    )


@lru_cache(maxsize=1000)
def _query(terms: frozenset[tuple[str, str]]) -> Any:
    conditions = prebuilt.conditions(Pet, terms)
    year = sa.extract("year", col(Pet.birth_date))
    # PostgreSQL gives a column that is NULL in the first two parts the type text: these two set all types.
    return sa.union_all(
        _part("born", conditions, year=year),
        _part("kind", conditions, key=col(Pet.status), sex=col(Pet.sex)),
        _part("species", conditions, key=col(Pet.species)),
    )


def _part(name: str, conditions: list[sa.ColumnElement[bool]], **keys: Any) -> sa.Select[Any]:
    """Count the pets of each combination of the keys; all parts have the same columns."""
    part: sa.Label[str] = sa.literal_column(f"'{name}'").label("part")
    key_columns = [keys.get(key, sa.null()).label(key) for key in ("key", "sex", "year")]
    owned = func.count(col(Pet.owner_id)).label("owned")
    chipped = func.count(col(Pet.microchip)).label("chipped")
    query = sa.select(part, *key_columns, func.count().label("pets"), owned, chipped)
    return query.where(*conditions).group_by(*keys.values())


def _year(year: float | None) -> int | None:
    """Return a year as an int; asyncpg stores date.min and date.max of Python as -infinity and infinity."""
    return None if year is None else int(min(max(year, MINYEAR), MAXYEAR))


def _most_frequent(numbers: dict[str | None, int]) -> dict[str | None, int]:
    """Return the first species, and the sum of all others."""
    if len(numbers) <= _MAX_SPECIES_SHOWN:
        return numbers
    first = dict(list(numbers.items())[: _MAX_SPECIES_SHOWN - 1])
    return {**first, f"{len(numbers) - len(first)} others": sum(numbers.values()) - sum(first.values())}
