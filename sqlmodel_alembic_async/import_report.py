"""What an import did, and what it did not take."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["created", "updated", "unchanged"]

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a row was not taken; `column` and `value` are the file's own, None where it is the row as a whole."""

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
    """How many rows of the file were created, updated, unchanged and rejected, and each reason of a rejection."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    rejections: list[Rejection] = field(default_factory=list, repr=False)  # An error's repr must not quote the rows.
    dry_run: bool = False

    @property
    def rows(self) -> int:
        """The number of rows that are not blank."""
        return self.created + self.updated + self.unchanged + self.rejected

    @property
    def reasons(self) -> Counter[str]:
        """How often each reason was given."""
        return Counter(rejection.reason for rejection in self.rejections)

    def reject(self, line: int, column: str | None, value: str | None, reason: str) -> None:
        """Note why a row is rejected; there may be several reasons."""
        self.rejections.append(Rejection(line, column, value, reason))

    def count(self, outcome: Outcome) -> None:
        """Count a row that was taken."""
        setattr(self, outcome, getattr(self, outcome) + 1)

    def __str__(self) -> str:
        counts = ", ".join(
            f"{getattr(self, name):,} {name}" for name in ("created", "updated", "unchanged", "rejected")
        )
        lines = [f"{counts}{' (dry run: nothing was written)' if self.dry_run else ''}"]
        lines += [f"  {rejection}" for rejection in self.rejections[:_SHOWN]]
        if (more := len(self.rejections) - _SHOWN) > 0:
            lines.append(f"  and {more:,} more")
            lines += [f"  {number:,} times: {reason}" for reason, number in self.reasons.most_common(_SHOWN)]
        return "\n".join(lines)
