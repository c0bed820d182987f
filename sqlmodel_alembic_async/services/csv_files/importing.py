"""Import: the rows of a CSV file become pets and owners, matched by their keys, or are rejected with a reason."""

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
from .key_index import Ledger
from .sources import Source, opened

Progress = bool | Callable[[int], object] | None


async def import_pets(
    session: AsyncSession,
    source: Source,
    *,
    columns: Mapping[str, str | None] | None = None,
    date_format: str | None = None,
    placeholder_names: PlaceholderNames = "reject",
    keep_going: bool = False,
    dry_run: bool = False,
    progress: Progress = None,
) -> ImportReport:
    """Import pets and their owners from a CSV file, a path or an open text file, in a savepoint.

    A row is matched by external_ref, then by microchip (a pet) or e-mail (an owner); a blank cell changes nothing.
    Any rejected row raises ImportRejectedError with the report, and nothing is written, unless `keep_going`.
    `columns` names the field for a header that is not ours, None to ignore it; `date_format` is strptime's.

    A stored row is locked before it is changed, and changed only at the version that was read. An open file is left
    where it was, so that it can be imported again; a pipe can be read only once.

    Raises:
        ImportRejectedError: The file, or a row of it, can not be imported.
        TransactionConflictError: Another transaction changed a row, stored a key, or deleted an owner meanwhile.
        StorageError: The temporary storage, or that of the database, is full.

    """
    if placeholder_names not in ("reject", "keep"):
        raise ValueError('placeholder_names must be "reject" or "keep"')
    async with opened(source) as text:
        table = CSVFile(text, columns or {})
        cells = CellReader(table.fields, date_format=date_format, placeholder_names=placeholder_names)
        with Ledger() as ledger:
            file = ImportedFile(table, cells, ledger)
            return await _import(session, file, keep_going=keep_going, dry_run=dry_run, progress=progress)


async def _import(
    session: AsyncSession, file: ImportedFile, *, keep_going: bool, dry_run: bool, progress: Progress
) -> ImportReport:
    work = BatchImport(session, file)
    await file.look_ahead(counted=progress is True)
    with _shown(progress, file.ledger.rows) as show:
        async with savepoint(session) as written:
            for batch in file.batches():
                await work.take(await file.read(batch))
                show(file.report.rows)
            if file.report.rejected and not keep_going:
                raise ImportRejectedError(file.report)
            if dry_run:
                await written.rollback()
    if not dry_run:
        await work.refresh_session()
    file.report.dry_run = dry_run
    return file.report


@contextmanager
def _shown(progress: Progress, total: int) -> Iterator[Callable[[int], object]]:
    if progress is not True:
        yield progress or (lambda done: None)
        return
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped]  # it has no types of its own
    except ModuleNotFoundError:
        hint = "tqdm is not installed: pip install 'sqlmodel-alembic-async[progress]'"
        raise ModuleNotFoundError(hint, name="tqdm") from None
    with tqdm(total=total, unit=" rows") as bar:
        yield lambda done: bar.update(done - bar.n)
