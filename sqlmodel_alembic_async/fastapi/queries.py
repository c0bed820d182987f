"""The query parameters of lists, as models for FastAPI's Query()."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    WithJsonSchema,
    model_validator,
)

from ..fields import BREED_LENGTH, INTEGER_MAX, NAME_LENGTH, SPECIES_LENGTH, Date, Sex, Status
from ..services.csv_files.cell_parsing import PlaceholderNames, checked_date_format
from ..services.csv_files.file_format import COLUMNS
from ..services.statements.one_row import OnSimilar
from ..services.statements.pages import MAX_LIMIT, MAX_OFFSET, OrderBy

_CURSOR_LENGTH = 4000


def _digits(value: Any) -> Any:
    """Refuse what int() accepts beside digits, so that a row has one address."""
    if isinstance(value, str) and not (value.isascii() and value.isdigit()):
        raise ValueError("must be a whole number in digits")
    return value


def _moment(value: Any) -> Any:
    """Refuse a number and a date without a time, which pydantic accepts as a datetime."""
    if isinstance(value, str) and not value.partition("T")[2]:
        raise ValueError("must be a date and a time with a time zone, such as 2026-01-31T12:00:00Z")
    return value


def _any_is_none(value: Any) -> Any:
    return None if value == "any" else value


Id = Annotated[int, Field(ge=1, le=INTEGER_MAX), BeforeValidator(_digits)]
_Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT), BeforeValidator(_digits)]
_Offset = Annotated[int, Field(ge=0, le=MAX_OFFSET), BeforeValidator(_digits)]
_SearchText = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH)]
_ISODate = Annotated[Date, WithJsonSchema({"type": "string", "format": "date"})]
_ISOMoment = Annotated[datetime, BeforeValidator(_moment)]
_Archived = Annotated[
    bool | None,
    BeforeValidator(_any_is_none),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"const": "any", "type": "string"}]}),
]


def _column(field: str) -> str:
    if field not in COLUMNS:
        raise ValueError(f"must be one of {', '.join(COLUMNS)}")
    return field


_Columns = Annotated[
    Json[dict[str, Annotated[str, AfterValidator(_column)] | None]],
    WithJsonSchema({"type": "string", "contentMediaType": "application/json"}),
]


class Query(BaseModel):
    """Query parameters; one that is not known is refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class UserFilterQuery(Query):
    """The filters of users, as list_users() explains them. A row must match all of them."""

    name_prefix: _SearchText | None = Field(
        default=None, description="The name begins with this text; the case does not matter."
    )
    name_contains: _SearchText | None = Field(
        default=None, description="The name contains this text; the case does not matter. It reads every row."
    )
    archived: _Archived = Field(
        default=False, description='"false" leaves archived rows out, "true" gives only them, "any" gives all rows.'
    )
    changed_since: _ISOMoment | None = Field(
        default=None,
        description="Added or changed at this time or later: a date and a time with a time zone. Deleted rows leave no "
        "trace.",
    )


class PetFilterQuery(UserFilterQuery):
    """The filters of pets, as list_pets() explains them. A row must match all of them."""

    owner_id: Id | None = None
    ownerless: bool | None = Field(default=None, description="Whether the pet has no owner.")
    species: Annotated[str, Field(min_length=1, max_length=SPECIES_LENGTH)] | None = Field(
        default=None, description="The whole text; upper and lower case are the same."
    )
    species_known: bool | None = None
    breed: Annotated[str, Field(min_length=1, max_length=BREED_LENGTH)] | None = Field(
        default=None, description="The whole text; upper and lower case differ."
    )
    breed_known: bool | None = None
    sex: Sex | None = None
    status: Status | None = None
    born_from: _ISODate | None = Field(default=None, description="Born on this day or later.")
    born_until: _ISODate | None = Field(default=None, description="Born on this day or earlier.")
    microchipped: bool | None = Field(default=None, description="Whether a microchip number is stored.")


class _PageQuery(Query):
    order_by: OrderBy = Field(default="name", description='A leading "-" reverses the order. The id breaks ties.')
    limit: _Limit = Field(default=50, description="The size of the page.")
    after: Annotated[str, Field(max_length=_CURSOR_LENGTH)] | None = Field(
        default=None, description="`next` of the page before. A deep page costs as much as the first one."
    )
    offset: _Offset = Field(
        default=0, description="How many rows to skip, for numbered pages. Not together with `after`."
    )

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.after is not None and self.offset:
            raise ValueError("after and offset cannot be combined: pass only one of them")
        return self


class UserQuery(_PageQuery, UserFilterQuery):
    """The query parameters of a list of users.

    For an endpoint of your own: `query: Annotated[UserQuery, Query()]`, and then
    `list_users(session, **query.model_dump())`.
    """


class PetQuery(_PageQuery, PetFilterQuery):
    """The query parameters of a list of pets.

    For an endpoint of your own: `query: Annotated[PetQuery, Query()]`, and then
    `list_pets(session, **query.model_dump())`.
    """


class CreateQuery(Query):
    """The query parameters of a new row."""

    on_similar: OnSimilar = Field(default="allow", description='"error" refuses a row that is similar to a stored one.')


class GetUserQuery(Query):
    """The query parameters of one user."""

    with_pets: bool = Field(default=False, description="Also answer the pets of the user; without an ETag.")


class DeleteUserQuery(Query):
    """The query parameters of a deletion."""

    pets: Literal["refuse", "release"] = Field(
        default="refuse", description='"release" leaves the pets without an owner.'
    )


class DuplicatesQuery(Query):
    """The query parameters of a search for duplicates."""

    limit: _Limit = Field(default=50, description="The largest number of groups.")


class ImportQuery(Query):
    """The query parameters of an import, as import_pets() explains them."""

    columns: _Columns | None = Field(
        default=None,
        description="A JSON object that maps headers of the file to fields, or to null to ignore the column.",
    )
    date_format: Annotated[str, Field(max_length=100), AfterValidator(checked_date_format)] | None = Field(
        default=None, description='How dates are written, such as "%d.%m.%Y". Without it: YYYY-MM-DD.'
    )
    placeholder_names: PlaceholderNames = Field(
        default="reject", description='What to do with rows whose name is a word such as "unknown" or "-".'
    )
    keep_going: bool = Field(default=False, description="Store the accepted rows even if others are rejected.")
    dry_run: bool = Field(default=False, description="Store nothing; the report tells what would be stored.")
