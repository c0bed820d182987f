"""The package as others get it: the wheel, the public names, which module may import which, and where its tests are."""

import ast
import hashlib
import importlib
import inspect
import os
import pkgutil
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Collection
from graphlib import TopologicalSorter
from pathlib import Path
from zipfile import ZipFile

import pytest

import sqlmodel_alembic_async as package

PROJECT = Path(__file__).parents[1]
PACKAGE = PROJECT / "sqlmodel_alembic_async"

# Each room, and the rooms that its modules import from; beside them, they import from their own room.
_BASE = {"import_report", "errors", "fields", "models", "undo", "driver_errors"}
ROOMS = {
    "import_report": set(),
    "errors": {"import_report"},
    "fields": set(),
    "columns": set(),
    "row_validation": {"fields"},
    "microchips": {"fields"},
    "schema": {"errors"},
    "schema_locks": {"errors", "schema"},
    "plain_signatures": set(),
    "shapes": {"fields", "columns", "plain_signatures"},
    "public_shapes": {"fields"},
    "unloaded": set(),
    "models": {"schema", "row_validation", "shapes", "unloaded"},
    "display": {"models"},
    "undo_log": {"models"},
    "undo": {"models", "undo_log"},
    "error_codes": set(),
    "driver_errors": {"error_codes", "errors", "engines.common"},
    "start_errors": {"errors", "driver_errors"},
    "settings": set(),
    "computed_once": set(),
    "engines.common": set(),
    "engines.sqlite": {"engines.common"},
    "engines.servers": {"engines.common"},
    "engines": {"engines.common", "engines.sqlite", "engines.servers"},
    "services.statements": _BASE | {"columns", "display", "engines.common", "row_validation"},
    "services.duplicates": {"errors", "fields", "models", "services.statements"},
    "services": {"import_report", "errors", "fields", "models", "display", "plain_signatures"}
    | {"services.statements", "services.duplicates"},
    "services.csv_files": _BASE - {"undo"} | {"services.statements", "plain_signatures"},
    "retries": {"errors"},
    "loading": {"models"},
    "sessions": {"engines.common", "errors", "driver_errors", "models", "undo", "loading"},
    "databases": {"settings", "computed_once", "engines", "driver_errors", "models", "retries", "sessions"}
    | {"schema_locks"},
    "command_lock": set(),
    "migrations": {"databases", "driver_errors", "errors", "models", "schema", "command_lock"},
    "migration_plan": {"migrations", "schema"},
    "prompt_changes": set(),
    "prompt_session": {"prompt_changes", "sessions"},
    "ipython": {"databases", "migrations", "prompt_session", "start_errors"},
    "fastapi": {"import_report", "errors", "fields", "models", "public_shapes", "microchips", "databases", "migrations"}
    | {"services", "services.statements", "services.duplicates", "services.csv_files"},
}

FIRST_STEPS = """
import asyncio
import sqlmodel_alembic_async as p

async def main():
    await p.migrations.upgrade()
    async with p.database.transaction() as session:
        await p.create_pet(session, p.PetCreate(name="Rex"))
    async with p.database.reading() as session:
        print(p.__file__, *(pet.name for pet in (await p.list_pets(session)).items), sep="\\n")
    await p.database.dispose()

asyncio.run(main())
"""


def run(*command: str, cwd: Path, **environment: str) -> str:
    """Run a command that must succeed, without this process's DATABASE_URL, and return what it prints."""
    env = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"} | environment
    finished = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git keeps, or would keep, as it is now."""
    folder = tmp_path_factory.mktemp("source")
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=PROJECT)
    for name in filter(None, listed.split("\0")):
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `python -m build` makes of its own sdist, beside which it lies."""
    folder = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "build", "--outdir", str(folder), str(source), cwd=folder)
    assert len(list(folder.glob("*.tar.gz"))) == 1
    [wheel] = folder.glob("*.whl")
    return wheel


def contents(wheel: Path) -> dict[str, str]:
    with ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def test_the_wheel_holds_the_package_its_types_and_its_migrations_and_nothing_else(source: Path, wheel: Path) -> None:
    modules = [path for path in source.glob("sqlmodel_alembic_async/**/*") if path.is_file()]
    migrations = [path for path in source.glob("alembic/**/*") if path.is_file()]
    expected = {str(path.relative_to(source)) for path in modules}
    expected |= {f"sqlmodel_alembic_async/{path.relative_to(source)}" for path in migrations}

    names = {name for name in contents(wheel) if not name.endswith("/")}

    metadata = {name for name in names if name.partition("/")[0].endswith(".dist-info")}
    assert names - metadata == expected
    assert {
        f"sqlmodel_alembic_async/{name}" for name in ("py.typed", "alembic/env.py", "alembic/script.py.mako")
    } <= names
    assert any(name.startswith("sqlmodel_alembic_async/alembic/versions/") for name in names)


def test_the_sdist_builds_the_wheel_that_the_source_builds(source: Path, wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(source), cwd=tmp_path)

    [direct] = tmp_path.glob("*.whl")
    assert contents(direct) == contents(wheel)


def test_the_installed_wheel_migrates_and_works_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site 100%"
    here = tmp_path / "empty"
    here.mkdir()
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-index")
    run(*pip, "--target", str(site), str(wheel), cwd=here)

    printed = run(sys.executable, "-W", "error", "-c", FIRST_STEPS, cwd=here, PYTHONPATH=str(site))

    assert printed.splitlines() == [str(site / "sqlmodel_alembic_async" / "__init__.py"), "Rex"]
    assert stat.S_IMODE((here / "data.db").stat().st_mode) == 0o600


def test_the_version_is_the_one_in_pyproject() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert package.__version__ == project["version"]


def test_every_public_name_is_listed_and_every_listed_name_is_there() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level]
    imported = {alias.asname or alias.name for node in imports for alias in node.names}
    # The engine is built, and some are imported, when they are first asked for.
    expected = {name for name in imported if not name.startswith("_")} | {"__version__", "engine", *package._LATER}

    assert set(package.__all__) == expected
    assert all(hasattr(package, name) for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


def test_what_is_imported_later_is_what_a_type_checker_sees() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    seen = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in seen.body if isinstance(node, ast.ImportFrom) and node.level]

    assert {alias.name: f".{node.module}" for node in imports for alias in node.names} == package._LATER


def test_the_list_of_public_names_is_sorted_and_holds_each_once() -> None:
    assert package.__all__ == sorted(set(package.__all__))


def test_every_public_class_and_function_has_a_docstring_of_its_own() -> None:
    public = {name: getattr(package, name) for name in package.__all__}
    promising = {name: value for name, value in public.items() if inspect.isclass(value) or inspect.isfunction(value)}

    assert {"Pet", "PetFilters", "create_pet"} <= promising.keys()
    assert [name for name, value in promising.items() if not own_docstring(value)] == []


def own_docstring(value: object) -> str | None:
    return value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__


def test_every_public_module_has_a_docstring() -> None:
    walk = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    names = [found.name for found in walk if "._" not in found.name and ".alembic" not in found.name]

    undocumented = [name for name in (package.__name__, *names) if not importlib.import_module(name).__doc__]

    assert f"{package.__name__}.services.pets" in names
    assert undocumented == []


def modules_of_the_package() -> dict[str, Path]:
    """Return every module but the package itself, by its dotted name inside it."""
    found = {path.relative_to(PACKAGE).with_suffix("").parts: path for path in PACKAGE.rglob("*.py")}
    found = {parts[:-1] if parts[-1] == "__init__" else parts: path for parts, path in found.items()}
    return {".".join(parts): path for parts, path in found.items() if parts}


def imported_by(path: Path, modules: Collection[str]) -> set[str]:
    """Return the modules that a module imports, wherever in it, for types only too."""
    folder = (package.__name__, *path.parent.relative_to(PACKAGE).parts)
    entered = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join((*folder[: len(folder) + 1 - node.level], *filter(None, [node.module])))
            # A module of the folder, or a name of the module.
            targets = [f"{base}.{alias.name}" for alias in node.names]
            targets = [target if target.partition(".")[2] in modules else base for target in targets]
        else:
            continue
        entered |= {target.partition(".")[2] for target in targets if target.startswith(f"{package.__name__}.")}
    return entered


def room_of(module: str) -> str:
    """Return the folder of a module, or the module itself where it is not in one."""
    folder = next((room for room in ROOMS if room.count(".") == 1 and module.startswith(f"{room}.")), None)
    if folder is None and module.startswith("engines."):
        folder = module if module in ROOMS else "engines.common"
    return folder or (module if module in ROOMS else module.rpartition(".")[0])


def test_imports_go_one_way_only() -> None:
    modules = modules_of_the_package()
    arrows = {name: imported_by(path, modules) for name, path in modules.items()}
    entered: dict[str, set[str]] = {room_of(name): set() for name in modules}
    for name, targets in arrows.items():
        entered[room_of(name)] |= {room_of(target) for target in targets} - {room_of(name)}

    assert entered == ROOMS
    TopologicalSorter(ROOMS).prepare()  # CycleError names the circle.
    TopologicalSorter(arrows).prepare()


def holds_a_test(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return any(function.name.startswith("test_") for function in functions)


def test_every_module_has_a_test_file_of_its_name() -> None:
    tests = PROJECT / "tests"
    modules = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    expected = {path.with_name(f"test_{path.name}") for path in modules}
    there = {path.relative_to(tests) for path in tests.rglob("test_*.py") if holds_a_test(path)}

    assert Path("services/pets.py") in modules
    assert sorted(map(str, expected - there)) == []
