"""The OpenAPI schema of the router; `python -m tests.fastapi.openapi` writes the stored copy anew."""

import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from sqlmodel_alembic_async import Database
from sqlmodel_alembic_async.fastapi import create_router

STORED = Path(__file__).with_name("openapi.json")


def schema() -> dict[str, Any]:
    """Return the schema of an application that has the router only."""
    app = FastAPI(title="Users and pets", version="1")
    app.include_router(create_router(Database("sqlite://")))
    return app.openapi()


def operations(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the operations by method and path, such as "GET /users"."""
    paths = schema["paths"].items()
    return {f"{method.upper()} {path}": operation for path, item in paths for method, operation in item.items()}


def text_of(schema: dict[str, Any]) -> str:
    """Return the schema as text, without the phrases of statuses, which differ between versions of Python."""
    schema = json.loads(json.dumps(schema))
    for operation in operations(schema).values():
        for status, response in operation["responses"].items():
            if response["description"] == HTTPStatus(int(status)).phrase:
                response["description"] = "The phrase of the status"
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    STORED.write_text(text_of(schema()), encoding="utf-8")
