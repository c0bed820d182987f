"""The arithmetic of the benchmark of the web, on figures made up; the command itself needs its extra."""

import json
import subprocess
import sys

from . import report
from .apps import APPS, OURS, TUTORIAL
from .client import request
from .suite import OPERATIONS, PROJECT


def figures(**factors: float) -> dict[str, dict[str, list[float]]]:
    rows = [f"{operation}{kind}" for operation in OPERATIONS for kind in ("", ", CPU", ", p99")]
    return {row: {name: [0.001 * factors.get(name, 1)] for name in APPS} for row in rows}


def test_the_first_quartile_of_the_rounds_counts() -> None:
    assert report.quartile({"get": {OURS: [1.0, 2.0, 3.0, 4.0, 100.0]}}, "get", OURS) == 2.0
    assert report.quartile({}, "get", OURS) is None


def test_a_goal_is_reached_at_its_limit_only() -> None:
    for factor, reached in ((1.9, True), (1.89, False)):
        [goal] = [
            goal
            for goal in report.goals({"postgresql": figures(**{TUTORIAL: factor})})
            if "create: times the requests per second of tutorial" in goal.text
        ]
        assert goal.reached is reached


def test_the_table_has_a_line_for_each_operation_and_kind() -> None:
    lines = report.table(figures(tutorial=2)).splitlines()

    assert len(lines) == 2 + 3 * len(OPERATIONS)
    assert "500 (2.00x)" in lines[2]


def test_a_request_names_the_length_of_its_body() -> None:
    body = json.dumps({"name": "Zoë"}).encode()

    assert f"content-length: {len(body)}\r\n".encode() in request("POST", "/pets", body)
    assert b"content" not in request("GET", "/pets/1")


def test_peers_are_imported_by_their_applications_only() -> None:
    code = "import sys, tests.benchmarks.web.__main__; print(*{'fastcrud', 'advanced_alchemy'} & set(sys.modules))"

    assert subprocess.check_output([sys.executable, "-c", code], cwd=PROJECT, text=True).strip() == ""
