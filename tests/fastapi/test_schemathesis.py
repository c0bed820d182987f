"""Schemathesis makes requests from the OpenAPI schema, and checks each answer by it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from sqlmodel_alembic_async import Database

from .serving import ROUTER, serving

EXCLUDED = {
    # The schema cannot say each rule: that an e-mail address has a domain, that no pet dies before its birth, or that
    # the owner exists. A body that breaks one is valid by the schema, and is answered with 422.
    "positive_data_acceptance",
    # The host's framework answers a method that a path does not have. Its Allow header names the methods of one route
    # only, although other routes with the same path have other methods.
    "allow_header_conformance",
}


def test_every_answer_to_requests_by_schemathesis_is_as_the_schema_says(db: Database, tmp_path: Path) -> None:
    schemathesis = Path(sys.executable).with_name("schemathesis")
    options = ["--max-examples", "10", "--exclude-checks", ",".join(sorted(EXCLUDED)), "--no-shrink", "--no-color"]
    deterministic = ["--seed", "1", "--generation-deterministic"]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("SCHEMATHESIS_")}

    with serving(ROUTER, tmp_path, db.url) as server:
        finished = subprocess.run(
            [schemathesis, "run", f"{server.url}/openapi.json", *options, *deterministic],
            cwd=tmp_path,  # It leaves folders there.
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

        output = finished.stdout + finished.stderr
        assert finished.returncode == 0, output
        assert "ERROR" not in server.log, server.log
    cases = re.search(r"([\d,]+) generated", output)
    assert cases, output
    assert int(cases[1].replace(",", "")) > 1000, output
