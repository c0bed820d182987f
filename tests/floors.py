"""Print the lowest version of each package that pyproject.toml allows, for `pip install --constraint`.

The packages that only the tests and the benchmarks need are not among them.
"""

import re
import tomllib
from pathlib import Path

_PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
_REQUIREMENT = re.compile(r"(?P<name>[\w-]+)(?:\[\w+\])? >=(?P<floor>[\w.]+)")


def floors() -> list[str]:
    project = tomllib.loads(_PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [name for name in extras if name not in ("all", "benchmark", "test")]
    requirements = project["dependencies"] + [requirement for name in needed for requirement in extras[name]]
    return [f"{match['name']}=={match['floor']}" for match in map(_REQUIREMENT.match, requirements) if match]


if __name__ == "__main__":
    print(*floors(), sep="\n")  # noqa: T201  # it is a command
