"""The models of responses that are not rows: reports, statistics, duplicates and microchips."""

from collections.abc import Collection
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, Field

from ..fields import Sex, Status
from ..import_report import ImportReport
from ..microchips import Kind, Standard
from ..public_shapes import PetPublic, UserPublic
from ..services.csv_files.file_format import COLUMNS
from ..services.duplicates.matching import DuplicateReason

Shape = TypeVar("Shape", UserPublic, PetPublic)

_MAX_REJECTIONS = 1000


class PagePublic(BaseModel, Generic[Shape]):
    """One page of a list, for the `response_model` of an endpoint of your own, such as PagePublic[UserPublic]."""

    items: list[Shape]
    next: str | None = Field(default=None, description="The value of `after` for the next page; null on the last one.")


class RejectionPublic(BaseModel):
    """Why a row of a file is rejected."""

    line: int = Field(description="The line of the file on which the row begins, from 1.")
    column: str | None = Field(default=None, description="null: the reason is about the row, or an unknown column.")
    reason: str


class ImportReportPublic(BaseModel):
    """The numbers of an import, the first 1,000 rejections, and how often each reason occurs."""

    created: int
    updated: int
    unchanged: int
    rejected: int
    without_key: int = Field(
        description="Of the created pets, those without external_ref and microchip. The same file would add them again."
    )
    dry_run: bool
    rejections: list[RejectionPublic]
    reasons: dict[str, int]


class MergeConflict(BaseModel):
    """The values of a field that both rows have: the kept one, and the one that is lost."""

    kept: Any
    dropped: Any


class MergeReportPublic(BaseModel, Generic[Shape]):
    """What a merge did, or would do."""

    kept: Shape
    dropped_id: int
    filled: dict[str, Any]
    conflicts: dict[str, MergeConflict]
    moved_pets: int
    dry_run: bool


class DuplicateGroupPublic(BaseModel, Generic[Shape]):
    """Rows that may be duplicates of each other."""

    rows: list[Shape]
    reasons: list[DuplicateReason]
    score: int


class Duplicates(BaseModel, Generic[Shape]):
    """The groups with the highest scores."""

    items: list[DuplicateGroupPublic[Shape]]
    more: bool = Field(description="Whether there are more groups than `limit`.")


class SpeciesCount(BaseModel):
    """The number of pets of a species; null: not known."""

    species: str | None = None
    pets: int


class YearCount(BaseModel):
    """The number of pets that were born in a year; null: not known."""

    year: int | None = None
    pets: int


class PetStatisticsPublic(BaseModel):
    """The number of pets, in total and by group."""

    total: int
    by_species: list[SpeciesCount]
    by_status: dict[Status, int]
    by_sex: dict[Sex, int]
    with_owner: int
    without_owner: int
    chipped: int
    unchipped: int
    born_per_year: list[YearCount]


class MicrochipPublic(BaseModel):
    """The parts of a microchip number, and the pet that has it; null: no pet has it."""

    number: str
    printed: str
    standard: Standard
    kind: Kind
    code: str | None = None
    issuer: str | None = None
    explanation: str
    pet: PetPublic | None = None


def public_report(report: ImportReport, columns: Collection[str] = ()) -> dict[str, Any]:
    """Return the report without the cells; a header is named only if it is a field, or if the client mapped it."""
    known = {*COLUMNS, *columns}
    counts = ("created", "updated", "unchanged", "rejected", "without_key", "dry_run")
    return {name: getattr(report, name) for name in counts} | {
        "rejections": [
            {"line": each.line, "column": each.column if each.column in known else None, "reason": each.reason}
            for each in report.rejections[:_MAX_REJECTIONS]
        ],
        "reasons": dict(report.reasons),
    }
