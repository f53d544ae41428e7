"""Field types of the REST API, and the base models of bodies, paths and queries."""

from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ..credentials.device_keys import SLOT_MAX
from ..credentials.payment_code import WALLET_NUMBER_MAX
from ..money import MAX_AMOUNT_MINOR, Currency, PositiveMinor
from ..protocol.fields import Reference

PAGE_MAX = 100
PAGE_DEFAULT = 50
NAME_CHARS_MAX = 60
CURSOR_CHARS_MAX = 200
_UUID = r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_RFC3339_UTC = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z$"


class Body(BaseModel):
    """Base of request bodies: unknown fields are rejected, and values are not converted between types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Parameters(BaseModel):
    """Base of path and query parameters: text that is converted to the types of its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Resource(BaseModel):
    """Base of response bodies. Clients ignore unknown fields, because the server may be newer."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class NoParameters(Parameters):
    """The parameters of an endpoint that has none."""


class Paging(Parameters):
    """Query parameters of a list."""

    limit: Annotated[int, Field(ge=1, le=PAGE_MAX, description="Maximum number of items on the page.")] = PAGE_DEFAULT
    cursor: Annotated[
        str | None,
        StringConstraints(max_length=CURSOR_CHARS_MAX, pattern=r"^[A-Za-z0-9_.-]+$"),
        Field(description="`next_cursor` of the previous page; omit it for the first page."),
    ] = None


ItemT = TypeVar("ItemT", bound=Resource)


class Page(Resource, Generic[ItemT]):
    """A page of a list."""

    # pydantic does not use the docstring of a generic model.
    model_config = ConfigDict(json_schema_extra={"description": "A page of a list."})

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        """Return the name in the OpenAPI document: `MerchantPage`."""
        return f"{params[0].__name__}Page"

    items: tuple[ItemT, ...]
    next_cursor: Annotated[str | None, Field(description="`cursor` of the next page; null on the last page.")]


Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=NAME_CHARS_MAX, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$"),
    Field(description="Name for people; 1 to 60 characters, no control characters."),
]
# A UUID in responses, in the canonical form that the server writes.
Id = Annotated[UUID, Field(json_schema_extra={"pattern": _UUID})]
SerialId = Annotated[int, Field(ge=1, le=2**53 - 1)]
WalletNumber = Annotated[int, Field(ge=1, le=WALLET_NUMBER_MAX, description="Number of the wallet.")]
TerminalNumber = Annotated[int, Field(ge=1, le=2**53 - 1, description="Number of the terminal.")]
Slot = Annotated[int, Field(ge=0, le=SLOT_MAX, description="Slot of the wallet's device.")]
Minor = Annotated[int, Field(ge=0, le=MAX_AMOUNT_MINOR, description="Amount in minor units of the currency; may be 0.")]
# A sum may exceed the largest amount, and it may be negative.
SumMinor = Annotated[int, Field(description="Sum in minor units of the currency; may be negative.")]
Time = Annotated[
    str,
    StringConstraints(pattern=_RFC3339_UTC, max_length=27),
    Field(
        description="Time in RFC 3339 in UTC, such as 2026-03-02T12:15:12.763Z.",
        json_schema_extra={"format": "date-time"},
    ),
]

__all__ = [
    "Body",
    "Currency",
    "Id",
    "Minor",
    "Name",
    "NoParameters",
    "Page",
    "Paging",
    "Parameters",
    "PositiveMinor",
    "Reference",
    "Resource",
    "SerialId",
    "Slot",
    "SumMinor",
    "TerminalNumber",
    "Time",
    "WalletNumber",
]
