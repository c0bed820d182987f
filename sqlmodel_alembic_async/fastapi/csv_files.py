"""The endpoints that import and export CSV files."""

import io
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack
from email.message import Message
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import Annotated, TextIO, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ..databases import AsyncSession, Database
from ..errors import ImportRejectedError
from ..import_report import ImportReport
from ..services.csv_files.exporting import export_pets as export
from ..services.csv_files.importing import import_pets as import_file
from ..services.csv_files.key_index import temporary_storage_errors
from .answers import json_response
from .documentation import refusals
from .problems import ProblemError, import_rejected
from .queries import ImportQuery, PetFilterQuery
from .reports import ImportReportPublic, public_report
from .routes import LimitedRequest

_MEDIA_TYPE = "text/csv"
_BODY = {"requestBody": {"required": True, "content": {_MEDIA_TYPE: {"schema": {"type": "string"}}}}}
_CHARSETS = {"utf-8", "utf8", "us-ascii"}
_MAX_CONTENT_TYPE = 200  # Message parses in quadratic time: 60,000 characters would take two seconds.
_MEMORY_BYTES = 1_000_000
_PART_BYTES = 2**16


class _CSVResponse(StreamingResponse):
    """A complete file: its length is known before the first byte is sent."""

    media_type = _MEDIA_TYPE

    def __init__(self, file: TextIO) -> None:
        file.flush()
        headers = {
            "content-length": str(os.fstat(file.fileno()).st_size),
            "content-disposition": 'attachment; filename="pets.csv"',
        }
        super().__init__(self._parts(), headers=headers)
        self._file = file

    async def _parts(self) -> AsyncIterator[bytes]:
        self._file.buffer.seek(0)
        while part := self._file.buffer.read(_PART_BYTES):
            yield part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await super().__call__(scope, receive, send)


def add_csv_files(router: APIRouter, database: Database, *, max_import_bytes: int) -> None:
    """Add the endpoints of imports and exports."""

    @router.get("/export", status_code=200, response_class=_CSVResponse, responses=refusals())
    async def export_pets(query: Annotated[PetFilterQuery, Query()]) -> Response:
        """Export pets and their owners as a CSV file, as of one moment. The file is complete before it is sent."""
        with temporary_storage_errors(), ExitStack() as stack:
            file = stack.enter_context(TemporaryFile("w+", encoding="utf-8", newline=""))
            async with database.reading(snapshot=True) as session:
                await export(session, file, **query.model_dump())
            response = _CSVResponse(file)
            stack.pop_all()  # The response closes the file.
        return response

    @router.post("/import", response_model=ImportReportPublic, responses=refusals(409, 413, 415), openapi_extra=_BODY)
    async def import_pets(request: Request, query: Annotated[ImportQuery, Query()]) -> Response:
        """Import pets and their owners from a CSV file. The whole file is received before the transaction begins."""
        _check_media_type(request.headers.get("content-type"))
        options = query.model_dump(exclude_none=True)

        with (
            temporary_storage_errors(),
            SpooledTemporaryFile(_MEMORY_BYTES) as spool,
            io.TextIOWrapper(spool, encoding="utf-8", newline="") as file,
        ):
            cast("LimitedRequest", request).max_bytes = max_import_bytes
            async for part in request.stream():
                file.buffer.write(part)
            file.seek(0)

            async def work(session: AsyncSession) -> ImportReport:
                return await import_file(session, file, **options)

            try:
                report = await database.run_transaction(work)
            except ImportRejectedError as error:
                raise import_rejected(error.report, query.columns or ()) from None
        return json_response(public_report(report, query.columns or ()))


def _check_media_type(content_type: str | None) -> None:
    message = Message()
    message["content-type"] = content_type if content_type and len(content_type) <= _MAX_CONTENT_TYPE else ""
    if message.get_content_type() != _MEDIA_TYPE or message.get_content_charset("utf-8") not in _CHARSETS:
        raise ProblemError(415, "unsupported_media_type", "the body must be text/csv in UTF-8")
