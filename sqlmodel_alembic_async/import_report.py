"""The report of an import."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["created", "updated", "unchanged"]

_MAX_SHOWN = 20
_DOUBLED = "another import of this file would create them again"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a row is rejected.

    Attributes:
        line: The line of the file on which the row begins, from 1.
        column: The header of the column, None if the reason is about the row as a whole.
        value: The text of the cell, None if there is no cell.
        reason: What is wrong and what to do; it contains no value of the row.

    """

    line: int
    column: str | None
    value: str | None
    reason: str

    def __str__(self) -> str:
        where = f"line {self.line}"
        if self.column is not None:
            where += f", {self.column}"
        return f"{where}: {self.reason}" if self.value is None else f"{where}: {self.value!r} {self.reason}"


@dataclass(slots=True)
class ImportReport:
    """The number of rows of a file by outcome, and the reasons of rejections.

    Attributes:
        created: Rows that added a pet, or rows without a pet that added an owner.
        updated: Rows that changed a stored pet or its owner, or rows without a pet that changed an owner.
        unchanged: Rows that changed nothing.
        rejected: Rows that were not written.
        rejections: The reasons, by line; a row may have several. They hold values of rows and are not in the repr.
        dry_run: Whether everything was rolled back.
        without_key: Of the rows that added a pet, those without external_ref and microchip. An import of the same file
            would add these pets again.

    """

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    rejections: list[Rejection] = field(default_factory=list, repr=False)
    dry_run: bool = False
    without_key: int = 0

    @property
    def rows(self) -> int:
        """The number of rows that are not blank."""
        return self.created + self.updated + self.unchanged + self.rejected

    @property
    def reasons(self) -> Counter[str]:
        """How often each reason occurs."""
        return Counter(rejection.reason for rejection in self.rejections)

    def reject(self, line: int, column: str | None, value: str | None, reason: str) -> None:
        """Add a reason why a row is rejected, without counting the row."""
        self.rejections.append(Rejection(line, column, value, reason))

    def count(self, outcome: Outcome) -> None:
        """Count a row that was not rejected."""
        setattr(self, outcome, getattr(self, outcome) + 1)

    def __str__(self) -> str:
        counts = ", ".join(
            f"{getattr(self, name):,} {name}" for name in ("created", "updated", "unchanged", "rejected")
        )
        lines = [f"{counts}{' (dry run: nothing was written)' if self.dry_run else ''}"]
        if self.without_key:
            lines.append(f"  {self.without_key:,} created without external_ref or microchip: {_DOUBLED}")
        lines += [f"  {rejection}" for rejection in self.rejections[:_MAX_SHOWN]]
        if (more := len(self.rejections) - _MAX_SHOWN) > 0:
            lines.append(f"  and {more:,} more")
            lines += [f"  {number:,} times: {reason}" for reason, number in self.reasons.most_common(_MAX_SHOWN)]
        return "\n".join(lines)
