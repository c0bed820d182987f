"""A router for FastAPI applications, and its parts for endpoints of your own (extra `fastapi`)."""

from importlib.util import find_spec as _find_spec

if _find_spec("fastapi") is None:
    hint = "FastAPI is not installed: run pip install 'sqlmodel-alembic-async[fastapi]'"
    raise ModuleNotFoundError(hint, name="fastapi")

from .dependencies import ReadingDependency, SessionDependency, reading_dependency, session_dependency
from .problems import Problem, install_error_handlers
from .queries import PetQuery, UserQuery
from .reports import PagePublic
from .router import create_router

__all__ = [
    "PagePublic",
    "PetQuery",
    "Problem",
    "ReadingDependency",
    "SessionDependency",
    "UserQuery",
    "create_router",
    "install_error_handlers",
    "reading_dependency",
    "session_dependency",
]
