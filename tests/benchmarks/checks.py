"""Every contender does the same work: what it wrote and read is compared before it is timed."""

from typing import Any

from .rows import PAGE, PET_COLUMNS, PREFIX, pet_values

_COMPARED = ("id", "name", "name_key", "color", "weight_g", "owner_id", "version")


async def check_small(name: str, contender: Any, reference: Any, pets: int) -> None:
    """Run each operation once and look at its effect through the reference; warms the caches, too."""
    values = pet_values(5_000_000)
    pet_id = await contender.create(values)
    row = await reference.get(pet_id)
    stored = {column: getattr(row, column) for column in PET_COLUMNS}
    expected = {**values, "name_key": values["name"].lower(), "version": 1, "status": "active", "archived_at": None}
    _same(name, "create", {column: stored[column] for column in expected}, expected)
    _same(name, "get", _shown(await contender.get(pet_id)), _shown(row))

    updated = await contender.update(pet_id, "white")
    row = await reference.get(pet_id)
    _same(name, "update", (row.color, row.name, row.updated_at > stored["updated_at"]), ("white", stored["name"], True))
    if updated is not None:
        _same(name, "updated row", field(updated, "color"), "white")

    await contender.delete(pet_id)
    _same(name, "delete", await reference.get(pet_id), None)
    await check_reads(name, contender, reference, None)
    _same(name, "pets", await reference.count(), pets)


async def check_reads(name: str, contender: Any, reference: Any, depth: int | None) -> None:
    """Compare a page and a search with the reference's."""
    place = None if depth is None else await contender.place(depth)
    reference_place = None if depth is None else await reference.place(depth)
    page = await contender.page(place)
    _same(name, "number", len(page), PAGE)
    _same(name, "page", [*map(_shown, page)], [*map(_shown, await reference.page(reference_place))])
    found = [*map(_shown, await contender.search(PREFIX))]
    _same(name, "search", found, [*map(_shown, await reference.search(PREFIX))])


def field(row: Any, column: str) -> Any:
    """Return a column of an object, a dictionary, a driver's record or a tuple."""
    if type(row) is tuple:
        return row[PET_COLUMNS.index(column)]
    return getattr(row, column) if hasattr(row, column) else row[column]


def _shown(row: Any) -> list[Any]:
    return [field(row, column) for column in _COMPARED]


def _same(name: str, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{name}: {what} gave {found!r} instead of {expected!r}")
