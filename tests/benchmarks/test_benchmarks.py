"""The arithmetic of the benchmarks, on figures made up; `python -m tests.benchmarks` itself needs its extra."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database, PetCreate, UserCreate, list_pets, migrations

from . import report, rows
from .chart import chart
from .contenders import CONTENDERS, PEERS
from .timing import concurrently, interleaved, timed

TITLES = report.row_titles(1_000_000, 10_000, 50)


def figures(**factors: float) -> dict[str, dict[str, list[float]]]:
    """Every row takes 1 ms with ours; the others take it times a factor."""
    names = {name: factors.get(name.replace("-", "_").replace(" ", "_"), 1.0) for name in CONTENDERS}
    return {row: {name: [0.001 * factor] for name, factor in names.items()} for row in TITLES}


def goal(results: report.Results, text: str, imports: dict[str, list[float]] | None = None) -> report.Goal:
    [found] = [goal for goal in report.goals(results, imports or {}, TITLES) if text in goal.text]
    return found


def test_a_median_is_taken_over_all_rounds():
    assert report.median({"get": {"ours": [3.0, 1.0, 100.0]}}, "get", "ours") == 3.0


def test_a_cell_that_was_not_measured_has_no_median_and_no_ratio():
    assert report.median({}, "get", "ours") is None
    assert report.ratio({"get": {"ours": [1.0]}}, "get", "tutorial") is None
    assert " - " in report.table({"get": {"ours": [1.0]}}, TITLES)


def test_a_ratio_says_how_many_times_as_long_as_ours():
    assert report.ratio({"get": {"ours": [0.5], "tutorial": [2.0]}}, "get", "tutorial") == 4.0


def test_the_fastest_peer_is_neither_core_nor_the_driver():
    measured = figures(tutorial=3, advanced_alchemy=2, FastCRUD=4, Core=0.5, raw_driver=0.1)

    assert report.fastest_peer(measured, "get") == "advanced-alchemy"


@pytest.mark.parametrize(
    ("engine", "text", "reached_at"),
    [
        ("sqlite", "SQLite, create: times as fast", 2),
        ("sqlite", "SQLite, get: times as fast", 1.5),
        ("sqlite", "SQLite, list of 100: times as fast", 1.25),
        ("postgresql", "PostgreSQL, update: times as fast", 1.5),
        ("postgresql", "PostgreSQL, delete: times as fast", 1.2),
        ("mariadb", "MariaDB, 50 tasks, p99: times as fast", 1),
    ],
)
def test_a_goal_against_peers_is_reached_at_its_limit_only(engine: str, text: str, reached_at: float):
    slower = dict.fromkeys(("tutorial", "FastCRUD"), reached_at + 1)

    assert goal({engine: figures(advanced_alchemy=reached_at, **slower)}, text).reached
    missed = goal({engine: figures(advanced_alchemy=reached_at - 0.01, **slower)}, text)
    assert not missed.reached
    assert "advanced-alchemy" in missed.text
    assert str(missed).startswith("MISSED")


@pytest.mark.parametrize(("engine", "most"), [("sqlite", 1), ("postgresql", 1.25), ("mariadb", 1.25)])
def test_a_goal_against_core_is_missed_beyond_its_limit(engine: str, most: float):
    text = f"{report.TITLES[engine]}, get: times as long as Core"

    assert goal({engine: figures(Core=1 / most)}, text).reached
    assert not goal({engine: figures(Core=1 / (most + 0.01))}, text).reached


def test_a_bulk_goal_compares_rates_with_the_driver():
    text = "PostgreSQL, create 10,000 pets: of the rate"

    assert goal({"postgresql": figures(raw_driver=0.34)}, text).reached
    assert not goal({"postgresql": figures(raw_driver=0.33)}, text).reached


def test_a_deep_page_is_compared_with_the_first_one():
    text = "page at depth 1,000,000: times as long as page at depth 0"

    assert goal({"sqlite": figures()}, text).reached
    assert not goal({"sqlite": figures() | {"deep page": {"ours": [0.0014]}}}, text).reached


def test_constant_memory_is_what_ten_times_the_rows_do_not_raise():
    memory = {"stream, memory": {"ours": [60.0]}, "stream, memory of a tenth": {"ours": [50.0]}}

    assert goal({"sqlite": memory}, "streaming").reached
    assert not goal({"sqlite": memory | {"stream, memory": {"ours": [500.0]}}}, "streaming").reached


def test_the_import_is_compared_with_what_it_imports():
    alone, package = report.IMPORTS

    assert goal({}, "import", {alone: [1.0], package: [1.15]}).reached
    assert not goal({}, "import", {alone: [1.0], package: [1.16]}).reached


def test_durations_read_well():
    assert [report.duration(seconds) for seconds in (0.0000421, 0.00123, 12.3)] == ["42 µs", "1.23 ms", "12.30 s"]


def test_the_table_has_a_line_for_each_row_and_a_ratio_for_each_other_contender():
    lines = report.table(figures(tutorial=2), TITLES).splitlines()

    assert len(lines) == 2 + len(TITLES)
    assert len({len(line) for line in lines}) == 1
    assert lines[2].count("x)") == len(CONTENDERS) - 1
    assert "2.00 ms (2.00x)" in lines[2]


def test_the_chart_has_a_bar_for_each_peer_row_and_engine():
    results = {"sqlite": figures(tutorial=2, FastCRUD=0.5), "mariadb": figures(advanced_alchemy=5000)}

    drawn = ElementTree.fromstring(chart(results, TITLES))

    bars = [rect for rect in drawn.iter() if rect.tag.endswith("rect")]
    assert len(bars) == len(PEERS) + len(results) * len(TITLES) * len(PEERS)
    assert all(float(bar.get("width", 0)) > 0 for bar in bars)
    width = float(drawn.get("width", 0))
    assert all(0 <= float(text.get("x", 0)) < width for text in drawn.iter() if text.tag.endswith("text"))


def test_rounds_are_interleaved_and_begin_with_another_contender_each():
    assert list(interleaved("abc", 2)) == ["a", "b", "c", "b", "c", "a"]


async def test_what_takes_too_long_is_called_fewer_times():
    async def nothing(value: int) -> int:
        return value

    results, seconds = await timed(nothing, [(1,), (2,)], budget=0)
    every, _ = await timed(nothing, [(1,), (2,)])

    assert (results, every) == ([1], [1, 2])
    assert seconds > 0


async def test_calls_that_fail_under_load_are_counted_and_not_timed():
    class Failing:
        async def get(self, pet_id: int) -> None:
            raise TimeoutError

        async def update(self, pet_id: int, color: str) -> None: ...

        async def page(self, place: None) -> None: ...

    _, latencies, errors = await concurrently(Failing(), tasks=5, calls=20, pets=10)

    assert len(latencies) + len(errors) == 100
    assert 50 < len(errors) < 90
    assert set(errors) == {"TimeoutError"}


async def test_seeded_rows_are_those_of_the_services(empty_url: URL):
    async with Database(empty_url) as db:
        await migrations.upgrade(database=db)
        await rows.seed(empty_url, 1, 100)
        await rows.seed(empty_url, 101, 200)
        async with db.reading() as session:
            found = (await list_pets(session, name_prefix=rows.PREFIX, order_by="id", limit=1000)).items

    assert len(found) == 200 / len(rows.NAMES)
    for pet in found:
        expected = rows.full_pet(rows.pet_values(pet.id))
        moments = {"created_at": rows.SEEDED, "updated_at": rows.SEEDED}
        assert pet.model_dump(exclude={"id"}) == expected | moments


def test_the_values_are_valid_and_filled_as_the_services_fill_them():
    for make, shape, full in ((rows.pets, PetCreate, rows.full_pet), (rows.users, UserCreate, rows.full_user)):
        for values in make(1, 40):
            given = shape(**values)
            filled = full(values)
            assert given.model_dump() == {name: filled[name] for name in type(given).model_fields}
            assert filled["updated_at"] - filled["created_at"] < timedelta(seconds=1)


def test_peers_are_imported_by_their_contenders_only():
    code = "import sys, tests.benchmarks.__main__; print(*{'fastcrud', 'advanced_alchemy'} & set(sys.modules))"

    project = Path(__file__).parents[2]
    assert subprocess.check_output([sys.executable, "-c", code], cwd=project, text=True).strip() == ""


def test_the_stock_tables_have_the_columns_of_the_migrated_ones():
    from .contenders import stock, tutorial

    for name, columns in (("pet", rows.PET_COLUMNS), ("user", rows.USER_COLUMNS)):
        assert set(stock.Base.metadata.tables[name].columns.keys()) == set(columns)
        model = {"pet": tutorial.Pet, "user": tutorial.User}[name]
        assert set(sa.inspect(model).local_table.columns.keys()) == set(columns)
