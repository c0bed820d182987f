"""The applications: one module each, imported only by the process that serves it, for the peers are no dependency.

Each module has `build(url)`, which returns the application.
"""

from importlib import import_module
from typing import Any

OURS = "ours"
TUTORIAL = "tutorial"
ADVANCED_ALCHEMY = "advanced-alchemy"
FASTCRUD = "FastCRUD"
PEERS = (TUTORIAL, ADVANCED_ALCHEMY, FASTCRUD)
APPS = (OURS, *PEERS)

_MODULES = {OURS: "ours", TUTORIAL: "tutorial", ADVANCED_ALCHEMY: "advanced_alchemy_", FASTCRUD: "fastcrud_"}

# The path of the first 50 living pets by name.
LISTS = {
    OURS: "/pets?limit=50",
    TUTORIAL: "/pets?limit=50",
    ADVANCED_ALCHEMY: "/pets?pageSize=50",
    FASTCRUD: "/pets?offset=0&limit=50&sort=name_key,id",
}


def build(name: str, url: str) -> Any:
    """Return an application on this database."""
    return import_module(f".{_MODULES[name]}", __name__).build(url)
