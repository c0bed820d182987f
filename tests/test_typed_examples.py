"""Type checkers accept the README's and the docs' Python blocks, and the program in tests/consumer.py."""

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest

from .test_docs import EXAMPLES, PROJECT, examples_of, files_of, name_of

CONSUMER = PROJECT / "tests" / "consumer.py"

# The names that IPython has: a block is read as what somebody types there, or in a coroutine of a program.
HEADER = """\
from sqlmodel import select as select
from sqlmodel_alembic_async import *
from sqlmodel_alembic_async import AsyncSession, database

session: AsyncSession = database.session()

"""
COROUTINE = "async def example() -> None:\n"


def is_module(code: str) -> bool:
    try:
        compile(code, "<block>", "exec")
    except SyntaxError:  # An await outside of a function, as in IPython.
        return False
    return True


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The blocks of the pages, each in a file of its own that is named after its page, and the programs of a page."""
    folder = tmp_path_factory.mktemp("examples")
    written = []
    for page in EXAMPLES:
        blocks = [example.code for example in examples_of(page) if not example.is_transcript]
        for number, code in enumerate(blocks):
            file = folder / f"{name_of(page).replace('/', '_').removesuffix('.md')}_{number}.py"
            file.write_text(HEADER + (code if is_module(code) else COROUTINE + indent(code, "    ")), encoding="utf-8")
            written.append(file)
    for name, program in files_of(PROJECT / "docs" / "fastapi.md").items():
        file = folder / Path(name).name
        file.write_text(program.code, encoding="utf-8")
        written.append(file)
    assert len(written) > 20
    return written


def test_mypy_accepts_the_examples_in_its_strict_mode(examples: list[Path], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", CONSUMER, *examples],
        env=os.environ | {"MYPYPATH": str(PROJECT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_pyright_accepts_the_examples(examples: list[Path]) -> None:
    folder = examples[0].parent
    (folder / "consumer.py").write_text(CONSUMER.read_text(encoding="utf-8"), encoding="utf-8")
    settings = folder / "pyrightconfig.json"
    settings.write_text(json.dumps({"extraPaths": [str(PROJECT)]}), encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "pyright", "-p", str(settings), "--pythonpath", sys.executable, "--outputjson"],
        env=os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )

    report = json.loads(done.stdout)
    assert report["generalDiagnostics"] == [], done.stdout
    assert report["summary"]["filesAnalyzed"] == len(examples) + 1
