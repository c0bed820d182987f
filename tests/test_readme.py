"""The README's code runs as it stands."""

import ast
import asyncio
import inspect
import re
from pathlib import Path

import pytest
from sqlalchemy.engine import URL
from sqlmodel import select

import sqlmodel_alembic_async as package
from sqlmodel_alembic_async import Database, migrations

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)

CSV = """\
\ufeffLicense Issue Date,Animal's Name,Species,Primary Breed,Secondary Breed,ZIP Code
April 19 2003,Tinkerdelle,Cat,Domestic Shorthair,,98116
May 21 2014, ,Cat,Domestic Shorthair,,98115
May 08 2015,Squeak\u00a0& Pip,Dog,"Retriever, Labrador",Mix,
"""


async def run(block: str, names: dict[str, object]) -> None:
    code = compile(block, README.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if inspect.isawaitable(outcome := eval(code, names)):
        await outcome


def test_the_example_at_the_top_runs_and_shows_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(run(BLOCKS[0].replace("asyncio.run(main())", "await main()"), {}))

    assert capsys.readouterr().out == (
        "Page(items=[Pet(id=1, name='Rex', owner_id=1, species='dog')], next=None)\n"
        "another row already has this email\n"
    )


def test_every_other_block_runs_in_the_session_it_describes(
    empty_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("licences.csv").write_text(CSV, encoding="utf-8")
    ran = 0

    async def main() -> None:
        nonlocal ran
        async with Database(empty_url) as database:
            monkeypatch.setattr(migrations.upgrade, "__kwdefaults__", {"database": database})
            monkeypatch.setattr(migrations.current, "__kwdefaults__", {"database": database})
            await migrations.upgrade()
            for block in BLOCKS[1:]:
                async with database.session() as session:
                    public = {name: getattr(package, name) for name in package.__all__ if name != "engine"}
                    await run(block, {**public, "select": select, "database": database, "session": session})
                ran += 1

    asyncio.run(main())

    assert ran == len(BLOCKS) - 1 >= 12
    readme = README.read_text(encoding="utf-8")
    comments = re.findall(r"^print\(.*\) +# (.*)$", readme, flags=re.MULTILINE)
    report = re.findall(r"^```text\n(\d+ created,.*?)^```$", readme, flags=re.MULTILINE | re.DOTALL)
    assert capsys.readouterr().out == "".join([*(f"{line}\n" for line in comments), *report])


def test_what_is_loaded_comes_back_as_the_fields_promise(
    empty_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("licences.csv").write_text(CSV, encoding="utf-8")
    block = next(block for block in BLOCKS if "licences.csv" in block)

    async def main() -> list[tuple[object, ...]]:
        async with Database(empty_url) as database:
            await migrations.upgrade(database=database)
            public = {name: getattr(package, name) for name in package.__all__ if name != "engine"}
            await run(block, {**public, "database": database})
            async with database.reading() as session:
                return [(pet.name, pet.species, pet.breed) async for pet in package.stream_pets(session)]

    assert asyncio.run(main()) == [
        ("Squeak\u00a0& Pip", "dog", "Retriever, Labrador"),
        ("Tinkerdelle", "cat", "Domestic Shorthair"),
    ]


@pytest.mark.parametrize("name", [name for name in package.__all__ if name.endswith("Error")])
def test_the_readme_names_every_error(name: str) -> None:
    assert name in README.read_text(encoding="utf-8") or name == "ConflictError"


@pytest.mark.parametrize("name", sorted({"DATABASE_URL", *(name for name in package.__all__ if name.islower())}))
def test_the_readme_names_every_function(name: str) -> None:
    known = {"__version__", "load_ipython_extension"}

    assert name in README.read_text(encoding="utf-8") or name in known
