"""The mutation run itself, on a package of a few lines."""

from pathlib import Path

import pytest

from . import runner
from .__main__ import main
from .mutants import mutants_of

PYPROJECT = """\
[tool.poetry]
packages = [{ include = "tiny" }]
"""
SOURCE = '''\
"""A tiny package."""

LIMIT = 10


def is_small(number: int) -> bool:
    """Tell whether a number is small."""
    return number < LIMIT


def count_down(number: int) -> int:
    while number > 0:
        number -= 1
    return number
'''
TESTS = """\
from tiny import count_down, is_small

def test_a_number_may_be_small():
    assert is_small(9)
    assert not is_small(11)

def test_a_count_ends():
    assert count_down(3) == 0
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in {"pyproject.toml": PYPROJECT, "tiny/__init__.py": SOURCE, "tests/test_tiny.py": TESTS}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "equivalent.toml").write_text("", encoding="utf-8")
    return tmp_path


def changes(source: str) -> set[str]:
    return {mutant.after for mutant in mutants_of(source)}


def test_survivors_are_listed_and_the_tree_is_left_alone(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "equivalent.toml").write_text(
        '[[mutant]]\ninside = ""\nbefore = "LIMIT = 10"\nafter = "LIMIT = 11"\nreason = "to see that it is left out"\n'
        '[[mutant]]\ninside = "gone"\nbefore = "a"\nafter = "b"\nreason = "to see that it is told"\n'
    )
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}

    code = main(["--module", "tiny", "--match", "LIMIT", "--equivalent", str(tree / "equivalent.toml")], tree)

    lines = capsys.readouterr().out.splitlines()
    assert code == 1
    assert "no mutant is like this entry of equivalent.toml: gone: a  ->  b" in lines
    assert "tiny/__init__.py:8  return number < LIMIT  ->  return number <= LIMIT" in lines
    assert [line.split() for line in lines if line.startswith("all ")] == [["all", "3", "2", "0", "1", "66.7%"]]
    assert {path: path.read_bytes() for path in before} == before


def test_a_mutant_without_end_is_timed_out(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = runner.Project(tree)
    [endless] = [mutant for mutant in mutants_of(SOURCE) if mutant.before == "number -= 1" and mutant.after == "pass"]
    with runner.copies_of(project, 1) as copies:
        known = runner.trace(copies, 1)
        monkeypatch.setattr(runner, "_START", 2.0)
        result = runner.judge(copies, known, "tiny/__init__.py", endless)

    own = [["tests/test_tiny.py::test_a_count_ends"], ["tests/test_tiny.py::test_a_number_may_be_small"]]
    assert known.tests_of("tiny/__init__.py", endless) == [*own, []]
    assert result.verdict == "timed out"


def test_what_a_tests_program_runs_in_another_folder_and_after_a_fork_is_seen(tree: Path) -> None:
    (tree / "tests" / "test_program.py").write_text(
        """\
import subprocess, sys

PROGRAM = '''
import os
from tiny import count_down, is_small
if os.fork():
    assert is_small(9)
    sys.exit(os.wait()[1])
count_down(3)
os._exit(0)
'''

def test_a_program_ends():
    subprocess.run([sys.executable, "-c", "import sys" + PROGRAM], cwd="/", check=True)
"""
    )
    with runner.copies_of(runner.Project(tree), 1) as copies:
        known = runner.trace(copies, 1)

    lines = known.tests["tests/test_program.py::test_a_program_ends"]["lines"]["tiny/__init__.py"]
    assert {SOURCE.splitlines().index(line) + 1 for line in ("    return number < LIMIT", "        number -= 1")} <= {
        *lines
    }


@pytest.mark.parametrize(
    ("module", "files"),
    [
        ("tiny/a.py", ["tests/test_a.py", "tests/test_aa.py", "tests/test_schema.py"]),
        ("tiny/rooms/a.py", ["tests/rooms/test_a.py", "tests/rooms/test_rooms.py", "tests/test_a.py"]),
        ("tiny/rooms/__init__.py", ["tests/rooms/test_a.py", "tests/rooms/test_rooms.py", "tests/test_room.py"]),
        ("alembic/versions/a.py", ["tests/test_migrations.py", "tests/test_schema.py"]),
    ],
)
def test_a_line_that_no_test_is_seen_to_run_is_judged_by_the_files_of_its_name(
    tree: Path, module: str, files: list[str]
) -> None:
    names = ["rooms/test_a", "rooms/test_rooms", "test_a", "test_aa", "test_migrations", "test_room", "test_schema"]
    test = {"passed": True, "broken": False, "seconds": 0.0, "lines": {}}
    tests = {f"tests/{name}.py::test": test for name in (*names, "test_tiny")}
    mutant = next(mutants_of("def f():\n  return x"))

    [near, _] = runner.Map(runner.Project(tree), tests, {}).tests_of(module, mutant)

    assert near == [f"{file}::test" for file in files]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < b", {"x = a <= b"}),
        ("x = a and not b", {"x = (a or not b)", "x = (not b)", "x = (a)", "x = a and (b)"}),
        ("x = f(a, *b, c=d)", {"x = f(a, c=d)", "x = f(a, *b)"}),
        ("x = q.where(a).all()", {"x = q.where(a)", "x = q.all()"}),
        ("x = {'a', 'b'}", {"x = {'b'}", "x = {'a'}"}),
        ("x = {'a': 1, **b}", {"x = {**b}", "x = {'a': 2, **b}", "x = {'a': 0, **b}"}),
        ("x = a[1:]", {"x = a[:]", "x = a[2:]", "x = a[0:]"}),
        ("x = 'two words'", set()),
        ("x = 'BEGIN IMMEDIATE'", {"x = 'BEGIN'"}),
        ("x = 'SELECT 1; SELECT 2'", {"x = 'SELECT 1'", "x = ' SELECT 2'"}),
        ("x = 'a > 1'", {"x = 'a >= 1'"}),
        ("with a: pass", {"with __import__('contextlib').nullcontext(): pass"}),
        ("def f(a: int = 1): 'docs'", {"def f(a: int = 2): 'docs'", "def f(a: int = 0): 'docs'"}),
        ("def f(): return f'{a < 1}'", {"def f(): return None"}),
        ("def f():\n  'docs'\n  x = 1\n  x = f()", {"pass", "x = 2", "x = 0"}),
        ("async def f(): await g(a, b=c)", {"async def f(): pass", "async def f(): await g(a)"}),
        ("x: Literal['a', 'b']", set()),
        ("if a: b = 1", {"if not (a): b = 1", "if a: b = 2", "if a: b = 0"}),
        ("raise KeyError", {"pass"}),
    ],
)
def test_a_source_has_these_mutants(source: str, expected: set[str]) -> None:
    assert changes(source) == expected


def test_a_key_outlives_other_lines_and_comments() -> None:
    [one] = [mutant for mutant in mutants_of("class A:\n  def f(self):\n    return x  # why") if "None" in mutant.after]
    [two] = [mutant for mutant in mutants_of("y\n\nclass A:\n  def f(self):\n    return x") if "None" in mutant.after]

    assert one.key == two.key == ("A.f", "return x", "return None")
