"""The contenders: one module each, imported only by the command, for the peers are no dependency of the tests.

A `Contender(url)` has the coroutines create, get, page, update, delete, bulk_pets, bulk_users and search, the
asynchronous generator stream, and `place`, which finds out untimed what `page` needs to begin at a depth.
"""

from importlib import import_module
from typing import Any

from sqlalchemy.engine import URL

OURS = "ours"
PEERS = ("tutorial", "advanced-alchemy", "FastCRUD")
CORE = "Core"
RAW = "raw driver"
CONTENDERS = (OURS, *PEERS, CORE, RAW)

_MODULES = {
    OURS: "ours",
    "tutorial": "tutorial",
    "advanced-alchemy": "repository",
    "FastCRUD": "fastcrud_",
    CORE: "core",
    RAW: "raw",
}


async def open_contender(name: str, url: URL) -> Any:
    """Return a contender with its engine or pool; `close` it afterwards."""
    return await import_module(f".{_MODULES[name]}", __name__).open_contender(url)
