"""Import pets and their owners from a CSV file."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from sqlmodel.ext.asyncio.session import AsyncSession

from ...errors import ImportRejectedError
from ...import_report import ImportReport
from ..statements.savepoints import savepoint
from .batch_import import BatchImport
from .cell_parsing import CellReader, PlaceholderNames
from .file_format import CSVFile
from .file_rows import ImportedFile
from .key_index import KeyIndex
from .owner_matching import find_keyless_owners
from .sources import TextSource, open_source

Progress = bool | Callable[[int], object] | None


async def import_pets(
    session: AsyncSession,
    source: TextSource,
    *,
    columns: Mapping[str, str | None] | None = None,
    date_format: str | None = None,
    placeholder_names: PlaceholderNames = "reject",
    keep_going: bool = False,
    dry_run: bool = False,
    progress: Progress = None,
) -> ImportReport:
    """Import pets and their owners from a CSV file, in a savepoint, and report what happened to each row.

    A row matches a stored pet by external_ref, then by microchip. An owner matches by external_ref, then by e-mail,
    or as the stored owner of the pet. Without a match, a new row is added. A blank cell changes nothing.

    On a server, stored rows are locked before they are updated, and the locks last until the end of the transaction.
    The file is read twice: a pipe or another stream is copied to a temporary file first. Memory grows with
    the number of rejections, not with the number of rows.

    Args:
        session: The session; pending changes are flushed first.
        source: A path, read as UTF-8, or a file opened in text mode, whose position is restored.
        columns: Maps a header of the file to a field, or to None to ignore the column. Headers that are names of
            fields need no entry.
        date_format: The strptime format of dates; ISO dates are accepted too, unless the format reads them as other
            dates. None accepts ISO dates only. A birth date may also be a year alone.
        placeholder_names: "reject" rejects names such as "unknown" or "-"; "keep" accepts them.
        keep_going: Write the accepted rows even if others are rejected.
        dry_run: Roll everything back at the end; the report is the same.
        progress: True shows a bar (needs tqdm); a function is called after each batch with the number of rows done.

    Raises:
        ImportRejectedError: The file cannot be read, or a row is rejected and `keep_going` is false. Nothing is
            written, and the error's `report` has the reasons.
        TransactionConflictError: Another transaction changed a row, added a key or deleted an owner in the meantime.
        StorageError: The temporary storage or the storage of the database is full or cannot be used.
        DatabaseError: The database failed, or the session is closed or used by another task.
        AlreadyExistsError: A unique index of the host application is stricter than this package's.
        ValueError: `placeholder_names` or `date_format` is invalid, or the source is closed, is a terminal, or is
            being read by another import.
        TypeError: The source is neither a path nor a file opened in text mode, or `progress` is neither a bool nor a
            function.
        OSError: The source cannot be opened or read.
        ModuleNotFoundError: `progress` is True and tqdm is not installed.

    """
    if placeholder_names not in ("reject", "keep"):
        raise ValueError('placeholder_names must be "reject" or "keep"')
    async with open_source(source) as text:
        csv_file = CSVFile(text, columns or {})
        cell_reader = CellReader(csv_file.fields, date_format=date_format, placeholder_names=placeholder_names)
        with KeyIndex() as key_index:
            file = ImportedFile(csv_file, cell_reader, key_index)
            return await _import(session, file, keep_going=keep_going, dry_run=dry_run, progress=progress)


async def _import(
    session: AsyncSession, file: ImportedFile, *, keep_going: bool, dry_run: bool, progress: Progress
) -> ImportReport:
    work = BatchImport(session, file)
    file.report.dry_run = dry_run
    await file.build_key_index(count_rows=progress is True)
    with _progress_callback(progress, file.key_index.row_count) as show_progress:
        async with savepoint(session) as transaction:
            await find_keyless_owners(session, file)
            async for batch in file.batches():
                await work.import_rows(await file.read(batch))
                show_progress(file.report.rows)
            if file.report.rejected and not keep_going:
                raise ImportRejectedError(file.report)
            if dry_run:
                await transaction.rollback()
    if not dry_run:
        await work.refresh_session()
    return file.report


@contextmanager
def _progress_callback(progress: Progress, total: int) -> Iterator[Callable[[int], object]]:
    if progress is not True:
        yield progress or (lambda done: None)
        return
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped]  # it has no types of its own
    except ModuleNotFoundError:
        hint = "tqdm is not installed: run pip install 'sqlmodel-alembic-async[progress]'"
        raise ModuleNotFoundError(hint, name="tqdm") from None
    with tqdm(total=total, unit=" rows") as bar:
        yield lambda done: bar.update(done - bar.n)
