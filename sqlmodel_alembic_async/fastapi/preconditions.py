"""ETag, If-Match and If-None-Match: the version of a row decides."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

from fastapi import Header
from pydantic import WithJsonSchema

from ..databases import AsyncSession, Database
from ..models import Pet, User
from .problems import ProblemError

# An entity tag of RFC 9110, perhaps a weak one; without its obsolete non-ASCII characters.
_TAG = r'(?:W/)?"[!#-~]*"'
_TAGS = rf"{_TAG}(?:[ \t]*,[ \t]*{_TAG})*"
_VERSION = re.compile(r'"([1-9][0-9]{0,9})"')

# Without it, FastAPI documents that the header may be null.
_TEXT = WithJsonSchema({"type": "string", "pattern": rf"^(?:\*|{_TAGS})$"})
IfMatch = Annotated[
    str | None,
    _TEXT,
    Header(description='The ETag of the row that the change is based on, such as "3"; * for any version.'),
]
IfNoneMatch = Annotated[str | None, _TEXT, Header(description='The ETag of the row that the client has, such as "3".')]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def etag(row: User | Pet) -> str:
    """Return the ETag of a row: its version in quotes."""
    return f'"{row.version}"'


def is_current(if_none_match: str | None, row: User | Pet) -> bool:
    """Tell whether If-None-Match names the version of the row.

    Raises:
        ProblemError: The header is malformed.

    """
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    return any(tag.removeprefix("W/") == etag(row) for tag in _tags("If-None-Match", if_none_match))


def require(if_match: str | None) -> None:
    """Refuse a request without If-Match.

    Raises:
        ProblemError: There is none.

    """
    if if_match is None:
        detail = "send the ETag of the row that the change is based on as If-Match, or * to change any version"
        raise ProblemError(428, "precondition_required", detail)


@dataclass(frozen=True)
class RowChange:
    """Changes one row in a transaction, if it is at a version that If-Match names.

    Attributes:
        database: The database.
        fetch: get_user or get_pet, which locks the row before its version is compared.

    """

    database: Database
    fetch: Callable[..., Awaitable[Any]]

    async def __call__(
        self,
        row_id: int,
        if_match: str | None,
        service: Callable[Concatenate[AsyncSession, int, Arguments], Awaitable[Result]],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Result:
        """Return the result of `service(session, row_id, ...)`.

        Raises:
            ProblemError: The header is malformed, or the row is at another version.

        """
        versions = _expected_versions(if_match)

        async def work(session: AsyncSession) -> Result:
            if versions is not None and (await self.fetch(session, row_id, for_update=True)).version not in versions:
                raise ProblemError(412, "stale_version", "the row is at another version than If-Match names: reload it")
            return await service(session, row_id, *arguments, **options)

        return await self.database.run_transaction(work)


def _expected_versions(if_match: str | None) -> list[int] | None:
    """Return the versions that If-Match names, or None if any version will do. A weak tag names none."""
    if if_match is None or if_match.strip() == "*":
        return None
    versions = map(_VERSION.fullmatch, _tags("If-Match", if_match))
    return [int(version[1]) for version in versions if version]


def _tags(header: str, text: str) -> list[str]:
    text = text.strip()
    if not re.fullmatch(_TAGS, text):
        raise ProblemError(400, "malformed_header", f'{header} must be an ETag in quotes, such as "3", or *')
    return re.findall(_TAG, text)
