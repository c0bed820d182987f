"""The README and the pages of docs/: their code runs, their links lead somewhere, and they name everything public."""

import ast
import asyncio
import inspect
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from IPython.lib.pretty import pretty
from sqlalchemy.engine import URL
from sqlmodel import SQLModel, select

import sqlmodel_alembic_async as package
import sqlmodel_alembic_async.fastapi
from sqlmodel_alembic_async import Database, migrations
from sqlmodel_alembic_async.models import TABLES

PROJECT = Path(__file__).parents[1]
README = PROJECT / "README.md"
EXAMPLES = [README, *sorted((PROJECT / "docs").glob("*.md"))]
PAGES = [*EXAMPLES, PROJECT / "CHANGELOG.md", PROJECT / "CONTRIBUTING.md"]
CHART = PROJECT / "tests" / "benchmarks" / "benchmarks.svg"

CSV = """\
\ufeffLicense Issue Date,Animal's Name,Species,Primary Breed,Secondary Breed,ZIP Code
April 19 2003,Tinkerdelle,Cat,Domestic Shorthair,,98116
May 21 2014, ,Cat,Domestic Shorthair,,98115
May 08 2015,Squeak\u00a0& Pip,Dog,"Retriever, Labrador",Mix,
"""

FENCED = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$\n?", flags=re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (?P<name>[\w/]+\.py)\n")
_PRINTED = re.compile(r"^ *print\(.*\) +# (.*)$", flags=re.MULTILINE)
_TRANSCRIPT = re.compile(r"In \[\d+\]: (?P<code>.*)\nOut\[\d+\]:\n(?P<shown>.*)", flags=re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (?P<title>.*)$", flags=re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """Code of a page, and what the page says that it prints."""

    code: str
    output: str
    is_transcript: bool = False


def files_of(page: Path) -> dict[str, Example]:
    """Return the Python blocks that are files of a program, by their names; test_host_applications.py runs it."""
    blocks = [block["body"] for block in FENCED.finditer(page.read_text(encoding="utf-8"))]
    return {
        found["name"]: Example(block, "".join(f"{line}\n" for line in _PRINTED.findall(block)))
        for block in blocks
        if (found := _FILE.match(block))
    }


def examples_of(page: Path) -> Iterator[Example]:
    """Yield the Python blocks, but for the files of a program, and the transcripts of IPython in their order."""
    text = page.read_text(encoding="utf-8")
    blocks = list(FENCED.finditer(text))
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if block["language"] == "python" and _FILE.match(block["body"]):
            continue
        if block["language"] == "python":
            printed = "".join(f"{line}\n" for line in _PRINTED.findall(block["body"]))
            if following and following["language"] == "text" and not text[block.end() : following.start()].strip():
                printed += following["body"]
            yield Example(block["body"], printed)
        elif transcript := _TRANSCRIPT.fullmatch(block["body"]):
            yield Example(transcript["code"], transcript["shown"], is_transcript=True)


async def run(code: str, names: dict[str, Any], mode: str = "exec") -> object:
    outcome = eval(compile(code, "<example>", mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    return await outcome if inspect.isawaitable(outcome) else outcome


def public_names() -> dict[str, Any]:
    return {name: getattr(package, name) for name in package.__all__ if name != "engine"}


def text_of(pages: list[Path]) -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def name_of(page: Path) -> str:
    return str(page.relative_to(PROJECT))


def test_the_example_at_the_top_runs_and_shows_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    first = next(examples_of(README))
    asyncio.run(run(first.code.replace("asyncio.run(main())", "await main()"), {}))

    assert capsys.readouterr().out == (
        f"Page(items=[Pet(id=1, name='Rex', owner_id=1, species='dog')], next=None)\n{first.output}"
    )


@pytest.mark.parametrize("page", EXAMPLES, ids=name_of)
def test_every_example_of_a_page_runs_and_prints_what_the_page_says(
    page: Path, empty_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("licences.csv").write_text(CSV, encoding="utf-8")
    examples = list(examples_of(page))[page == README :]  # The README's first one has a database of its own.

    async def main() -> None:
        async with Database(empty_url) as database:
            monkeypatch.setattr(migrations.upgrade, "__kwdefaults__", {"database": database})
            monkeypatch.setattr(migrations.current, "__kwdefaults__", {"database": database})
            monkeypatch.setattr(package.databases, "database", database)
            await migrations.upgrade()
            for example in examples:
                async with database.session() as session:
                    names = {**public_names(), "select": select, "database": database, "session": session}
                    if example.is_transcript:
                        shown = pretty(await run(example.code, names, "eval")) + "\n"
                    else:
                        await run(example.code, names)
                        shown = capsys.readouterr().out
                assert shown == example.output, example.code

    assert examples or files_of(page)
    asyncio.run(main())


def test_what_is_loaded_comes_back_as_the_fields_promise(
    empty_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("licences.csv").write_text(CSV, encoding="utf-8")
    page = PROJECT / "docs" / "import-export.md"
    code = next(example.code for example in examples_of(page) if "licences.csv" in example.code)

    async def main() -> list[tuple[object, ...]]:
        async with Database(empty_url) as database:
            await migrations.upgrade(database=database)
            await run(code, {**public_names(), "database": database})
            async with database.reading() as session:
                return [(pet.name, pet.species, pet.breed) async for pet in package.stream_pets(session)]

    assert asyncio.run(main()) == [
        ("Squeak\u00a0& Pip", "dog", "Retriever, Labrador"),
        ("Tinkerdelle", "cat", "Domestic Shorthair"),
    ]


async def test_a_hosts_own_alembic_leaves_our_tables_alone_as_the_page_shows(db: Database) -> None:
    names: dict[str, Any] = {}
    page = PROJECT / "docs" / "migrations.md"
    await run(next(example.code for example in examples_of(page) if "include_name" in example.code), names)
    host = sa.MetaData()
    for table in TABLES:
        SQLModel.metadata.tables[table].to_metadata(host)
    sa.Table("visit", host, sa.Column("pet_id", sa.ForeignKey("pet.id")))

    def differences(connection: sa.Connection) -> list[tuple[str, str]]:
        options = {name: names[name] for name in ("include_name", "include_object")}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), host)
        return [(kind, item.name) for kind, item in found]

    async with db.engine.connect() as connection:
        assert await connection.run_sync(differences) == [("add_table", "visit")]


@pytest.mark.parametrize("name", package.fastapi.__all__)
def test_the_page_on_fastapi_names_everything_public(name: str) -> None:
    assert f"`{name}" in (PROJECT / "docs" / "fastapi.md").read_text(encoding="utf-8")


def test_the_readme_names_every_extra_for_users() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = README.read_text(encoding="utf-8")
    extras = {*project["optional-dependencies"]} - {"all", "test", "benchmark", "shell"}

    assert {name for name in extras if f"`{name}`" in text} == extras


@pytest.mark.parametrize(
    "name", sorted({*package.__all__, "DATABASE_URL", "DATABASE_ECHO", "SQLITE_SYNCHRONOUS"} - {"__version__"})
)
def test_the_pages_name_everything_public(name: str) -> None:
    assert re.search(rf"\b{name}\b", text_of(EXAMPLES))


@pytest.mark.parametrize("name", sorted(name for name in package.__all__ if name.islower() and name != "__version__"))
def test_the_readme_names_every_function(name: str) -> None:
    assert f"`{name}`" in README.read_text(encoding="utf-8")


def services_of_the_table() -> list[tuple[str, str]]:
    """Return the names and the arguments of the services that the table of the page shows."""
    page = (PROJECT / "docs" / "services.md").read_text(encoding="utf-8")
    return re.findall(r"`(\w+)\(([^`]*)\)`", page.partition("## All services")[2].partition("MySQL takes")[0])


@pytest.mark.parametrize(("name", "shown"), services_of_the_table())
def test_the_table_of_services_shows_the_arguments(name: str, shown: str) -> None:
    filters = (
        {*package.UserFilters.__annotations__, *package.PetFilters.__annotations__} if "**filters" in shown else {}
    )
    parameters = [
        each for each in inspect.signature(getattr(package, name)).parameters.values() if each.name not in filters
    ]
    arguments = [str(each.replace(annotation=inspect.Parameter.empty)).replace("'", '"') for each in parameters]
    expected = ", ".join([*arguments, *["**filters"] * bool(filters)])
    beginning, _, end = shown.partition("…")

    assert expected.startswith(beginning)
    assert expected.endswith(end)
    assert "…" in shown or shown == expected


def test_the_errors_page_draws_the_tree_of_errors() -> None:
    tree = (PROJECT / "docs" / "errors.md").read_text(encoding="utf-8")
    drawn = re.findall(r"^(?:[ │├└─]*)(\w+Error)(?: \(.*\))?$", tree, flags=re.MULTILINE)

    assert sorted(drawn) == sorted(name for name in package.__all__ if name.endswith("Error"))


def test_the_errors_page_explains_every_check_of_the_tables() -> None:
    page = (
        (PROJECT / "docs" / "errors.md").read_text(encoding="utf-8").partition("## Constraints")[2].partition("## ")[0]
    )
    constraints = [each for table in TABLES for each in SQLModel.metadata.tables[table].constraints]
    checks = {str(each.name) for each in constraints if isinstance(each, sa.CheckConstraint)}

    assert sorted(re.findall(r"`(ck_\w+)`", page)) == sorted(checks)


def test_the_readme_is_read_in_one_go() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 175


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub makes them."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    titles = [found["title"].lower() for found in _HEADING.finditer(text)]
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    links = [found["target"] for found in _LINK.finditer(text)]
    broken = []
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        is_there = target.is_file() and target.is_relative_to(PROJECT)
        if not is_there or (anchor and anchor not in anchors_of(target)):
            broken.append(link)

    assert broken == []


def test_every_page_of_docs_is_linked_by_the_readme() -> None:
    links = {found["target"] for found in _LINK.finditer(README.read_text(encoding="utf-8"))}

    assert {name_of(page) for page in PAGES if page != README} <= links


def test_the_table_of_speed_has_the_numbers_of_the_chart() -> None:
    shown = re.findall(r">([\d.,]+)x<", CHART.read_text(encoding="utf-8"))
    drawn = [number for number in shown if len(re.sub(r"\D", "", number)) > 2]  # Those of the scale are shorter.
    operations = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = [re.findall(r"[\d.,]+ / [\d.,]+ / [\d.,]+", line) for line in operations.splitlines()]
    by_engine = list(zip(*filter(None, rows), strict=True))

    assert [number for cells in by_engine for cell in cells for number in cell.split(" / ")] == drawn


PATHS = re.findall(r"`([\w./]+\.(?:py|toml|lock|md|mako|ini)|[\w./]+/)`", text_of([PROJECT / "CONTRIBUTING.md"]))


STEPS = re.findall(r"^\d\. .*(?:\n   .*)*", text_of([PROJECT / "CONTRIBUTING.md"]), re.MULTILINE)


def named(path: str) -> list[Path]:
    places = (PROJECT, PROJECT / "sqlmodel_alembic_async", PROJECT / "sqlmodel_alembic_async" / "services")
    return [place / path for place in places if (place / path).exists()]


@pytest.mark.parametrize("path", sorted(set(PATHS)))
def test_what_the_guide_for_contributors_names_is_there(path: str) -> None:
    assert named(path) != []


@pytest.mark.parametrize("step", [step for step in STEPS if re.search(r"`[\w/]+\.py`", step)])
def test_a_step_of_the_guide_names_what_its_files_have(step: str) -> None:
    files = [file for path in re.findall(r"`([\w/]+\.py)`", step) for file in named(path)]
    text = text_of(files)

    assert [name for name in re.findall(r"`(\w+)`", step) if name not in text] == []


def test_the_map_of_the_code_names_every_module_and_folder_at_the_top_of_the_package() -> None:
    top = [path for path in (PROJECT / "sqlmodel_alembic_async").iterdir() if not path.name.startswith(("_", "."))]
    names = {path.name + "/" * path.is_dir() for path in top if path.suffix in ("", ".py")}

    assert names <= set(PATHS)
