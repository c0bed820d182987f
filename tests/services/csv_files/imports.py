"""What the tests of imports share."""

import asyncio
import io
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from sqlmodel_alembic_async import (
    AsyncSession,
    ImportRejectedError,
    ImportReport,
    Pet,
    User,
    import_pets,
    list_pets,
    list_users,
)

CHIPS = ("276098102345678", "276098102345679", "276098102345680")


def rows(*lines: str) -> io.StringIO:
    return io.StringIO("".join(f"{line}\r\n" for line in lines))


def counts(report: ImportReport) -> tuple[int, int, int, int]:
    return report.created, report.updated, report.unchanged, report.rejected


def reasons(report: ImportReport) -> list[tuple[int, str | None, str | None]]:
    return [(rejection.line, rejection.column, rejection.value) for rejection in report.rejections]


async def rejected(session: AsyncSession, *lines: str, **options: Any) -> ImportReport:
    with pytest.raises(ImportRejectedError) as caught:
        await import_pets(session, rows(*lines), **options)
    report = caught.value.report
    assert isinstance(report, ImportReport)
    return report


async def pets_of(session: AsyncSession) -> list[Pet]:
    return (await list_pets(session, order_by="id", limit=1000, archived=None)).items


async def users_of(session: AsyncSession) -> list[User]:
    return (await list_users(session, order_by="id", limit=1000)).items


async def cancel_half_way(transaction: AbstractAsyncContextManager[Any]) -> None:
    """Cancel a task that imports in this transaction, and see it end."""
    begun = asyncio.Event()

    async def work() -> None:
        async with transaction as session:
            await import_pets(
                session, rows("name", *["Rex"] * 100_000), progress=lambda done: begun.set() if done > 20 else None
            )

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
