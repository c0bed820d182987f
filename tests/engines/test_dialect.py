"""SQLAlchemy's own tests of a dialect: our connection passes those that aiosqlite's passes."""

import asyncio
import os
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

SUITE = Path(__file__).parent / "dialect_suite"


async def outcomes(connection: str, folder: Path) -> dict[tuple[str, str], str]:
    """Run the suite in a process and a folder of its own; return what became of each test."""
    shutil.copytree(SUITE, folder)
    suite = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "--tb=no", "--junit-xml=report.xml"),
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        | {"CONNECTION": connection, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await suite.communicate()
    assert (folder / "report.xml").exists(), printed.decode()
    tests = ElementTree.parse(folder / "report.xml").iter("testcase")
    return {
        (test.attrib["classname"], test.attrib["name"]): " ".join(sorted(result.tag for result in test)) or "passed"
        for test in tests
    }


async def test_what_the_dialect_can_do_on_aiosqlites_connection_it_can_do_on_ours(tmp_path: Path) -> None:
    theirs, ours = await asyncio.gather(outcomes("theirs", tmp_path / "theirs"), outcomes("ours", tmp_path / "ours"))

    assert list(theirs.values()).count("passed") > 1100
    assert {test: outcome for test, outcome in ours.items() if outcome != theirs.get(test)} == {}
    assert ours.keys() == theirs.keys()
