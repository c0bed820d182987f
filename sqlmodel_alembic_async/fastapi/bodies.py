"""The bodies of requests that no shape of the package describes."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import NotFoundError
from ..fields import Date, Flag, Id
from .problems import ProblemError, unknown_reference


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Merge(_Body):
    """The row that is merged into the row of the path."""

    drop_id: Id = Field(description="The id of the row that is deleted.")
    dry_run: Flag = Field(default=False, description="Change nothing; the report tells what would change.")

    @contextmanager
    def references(self, keep_id: int) -> Iterator[None]:
        """Refuse a `drop_id` that is the id of the path, or that no row has, and stored values that are not valid."""
        if self.drop_id == keep_id:
            raise ProblemError(422, "invalid_request", "drop_id: must differ from the id in the path", field="drop_id")
        try:
            yield
        except NotFoundError as error:
            if error.key == keep_id:
                raise
            raise unknown_reference("drop_id", error) from None
        except ValidationError:
            raise ProblemError(409, "conflict", "the stored values are not valid: correct them first") from None


class Ownership(_Body):
    """The new owner of a pet."""

    owner_id: Id | None = Field(description="The id of a user; null for no owner.")
    on: Date | None = Field(default=None, description="The first day with this owner; by default today.")
