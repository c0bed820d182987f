"""The OpenAPI schema of the router: a contract, which changes only on purpose."""

import difflib
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import validate

import sqlmodel_alembic_async

from .openapi import STORED, operations, schema, text_of

SCHEMA = schema()
OPERATIONS = operations(SCHEMA)
INPUTS = ["UserCreate", "UserUpdate", "PetCreate", "PetUpdate", "Merge", "Ownership"]


def test_the_schema_is_valid() -> None:
    validate(SCHEMA)


def test_the_schema_is_the_stored_copy() -> None:
    stored, current = STORED.read_text(encoding="utf-8"), text_of(SCHEMA)

    difference = "\n".join(difflib.unified_diff(stored.splitlines(), current.splitlines(), lineterm="", n=5))
    assert stored == current, f"review the change, then run `python -m tests.fastapi.openapi`:\n{difference}"


def test_an_operation_has_the_name_of_its_service() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]

    assert len(set(names)) == len(names)
    assert set(names) - set(sqlmodel_alembic_async.__all__) == {"live", "ready"}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_documents_its_statuses(name: str) -> None:
    operation = OPERATIONS[name]
    documented = {int(status) for status in operation["responses"]}
    headers = {each["name"] for each in operation.get("parameters", []) if each["in"] == "header"}
    reads = name.startswith("GET")

    expected: set[int] = set() if name == "GET /health/live" else {400, 422, 500, 503}
    expected.add(201 if name in ("POST /users", "POST /pets") else 204 if name.startswith("DELETE") else 200)
    expected |= {404} if "_id}" in name else set()
    expected |= {304} if "if-none-match" in headers else set()
    expected |= {412} if "if-match" in headers else set()
    expected |= {428} if name.startswith("PATCH") else set()
    expected |= {413} if "requestBody" in operation else set()
    expected |= {415} if name == "POST /pets/import" else set()
    may_conflict = not reads and not name.endswith(("/archive", "/restore", "/anonymise"))
    expected |= {409} if may_conflict else set()
    assert documented == expected


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_response_has_its_media_type_and_model(name: str) -> None:
    for status, response in OPERATIONS[name]["responses"].items():
        content = response.get("content", {})
        if int(status) >= 400:
            assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        elif status in ("204", "304"):
            assert content == {}
        elif name == "GET /pets/export":
            assert list(content) == ["text/csv"]
        else:
            assert list(content) == ["application/json"]
            assert content["application/json"]["schema"] != {}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_response_documents_its_headers(name: str) -> None:
    responses = OPERATIONS[name]["responses"]
    answers_a_row = {"$ref": "#/components/schemas/UserPublic"}, {"$ref": "#/components/schemas/PetPublic"}

    for status in {"200", "201"} & responses.keys():
        model = responses[status].get("content", {}).get("application/json", {}).get("schema", {})
        expected = {"ETag"} if model in answers_a_row or "anyOf" in model else set()
        expected |= {"Location"} if status == "201" else set()
        expected |= {"Link"} if name in ("GET /users", "GET /pets") else set()
        assert responses[status].get("headers", {}).keys() == expected


def test_inputs_have_lengths_formats_and_limits() -> None:
    schemas = {name: SCHEMA["components"]["schemas"][name] for name in INPUTS}
    named = [(f"{name}.{field}", each) for name in INPUTS for field, each in schemas[name]["properties"].items()]
    for name, operation in OPERATIONS.items():
        named += [(f"{name}?{each['name']}", each["schema"]) for each in operation.get("parameters", [])]

    assert all(each["additionalProperties"] is False for each in schemas.values())
    assert len(named) > 100
    for name, described in named:
        for each in alternatives(described):
            if each.get("type") == "string":
                limits = {"maxLength", "format", "enum", "const", "pattern", "contentMediaType"}
                assert limits & each.keys(), name
            if each.get("type") in ("integer", "number"):
                assert each.keys() >= {"minimum", "maximum"}, name
        if name.endswith(("_on", "_date", ".on", "born_from", "born_until")):
            assert "date" in [each.get("format") for each in alternatives(described)], name
        if name.endswith("_since"):
            assert "date-time" in [each.get("format") for each in alternatives(described)], name


def alternatives(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from schema.get("anyOf", [schema])
