"""A merchant's part of the API: its shifts, its statements, and what it holds."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ..accounting.shifts import REPORT_COLUMNS, TotalKind
from ..credentials.api_keys import Role
from ..money import Currency
from .endpoints import Endpoint, Kind
from .fields import Id, Minor, Page, Paging, Parameters, Resource, SerialId, SumMinor, TerminalNumber, Time

_Count = Annotated[int, Field(ge=0, description="how many")]
_Date = Annotated[
    str,
    StringConstraints(pattern=r"^\d{4}-\d\d-\d\d$"),
    Field(description="a business day, such as 2026-03-02", json_schema_extra={"format": "date"}),
]


class Shift(Resource):
    """A shift at a terminal."""

    shift_id: Id
    shift_number: Annotated[int, Field(ge=1, description="counts the shifts of the terminal")]
    terminal_number: TerminalNumber
    operator: str
    currency: Currency
    opened_at: Time
    closed_at: Annotated[Time | None, Field(description="null while it is open")]
    opening_cash_minor: Minor
    counted_cash_minor: Annotated[Minor | None, Field(description="null when nobody has counted")]


class ShiftFigure(Resource):
    """A line of a shift's report."""

    kind: Annotated[str, Field(description="what is counted", json_schema_extra={"enum": [*map(str, TotalKind)]})]
    count: _Count
    amount_minor: SumMinor


class ShiftShown(Shift):
    """A shift and its report: what `shift.report` says at the till."""

    report: Annotated[Literal["X", "Z"], Field(description="Z once the shift is closed, and final then")]
    merchant_name: str
    store_name: str
    made_at: Annotated[Time, Field(description="what the report is of")]
    totals: tuple[ShiftFigure, ...]
    net_sales_minor: Annotated[SumMinor, Field(description="sales less what was taken back of them")]
    expected_cash_minor: Annotated[SumMinor, Field(description="what should be in the drawer")]
    cash_difference_minor: Annotated[
        SumMinor | None, Field(description="counted less expected; null when nobody has counted")
    ]
    text: Annotated[
        str,
        Field(
            description=f"to print: lines of at most {REPORT_COLUMNS} columns, in the language of `Accept-Language`, "
            "where a CJK character takes two"
        ),
    ]


class ShiftPath(Parameters):
    """Which shift."""

    shift_id: Id


class ShiftQuery(Paging):
    """Which shifts."""

    terminal_number: TerminalNumber | None = None


class Statement(Resource):
    """What moved on the merchant's account in a business day, and what was paid of it. Sums are of `currency`.

    `net` is sales less cancels, refunds and fees, with the fees that came back; `closing` is opening and net, less
    what was paid out.
    """

    business_date: _Date
    currency: Currency
    starts_at: Time
    ends_at: Annotated[Time, Field(description="the first moment of the next day")]
    opening_minor: SumMinor
    sales: _Count
    sales_minor: SumMinor
    cancels: _Count
    cancels_minor: SumMinor
    refunds: _Count
    refunds_minor: SumMinor
    fees_minor: SumMinor
    fees_returned_minor: SumMinor
    net_minor: SumMinor
    paid_out_minor: SumMinor
    closing_minor: SumMinor


class StatementPath(Parameters):
    """Which day's."""

    business_date: _Date


class StatementQuery(Paging):
    """Which statements."""

    business_date: Annotated[_Date | None, Field(description="that of this business day")] = None


class MerchantBalance(Resource):
    """What the house owes the merchant now; what the merchant owes the house when it is negative."""

    merchant_id: SerialId
    currency: Currency
    balance_minor: SumMinor


REPORT_ENDPOINTS = (
    Endpoint(
        name="listShifts",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/shifts",
        summary="Shifts, opened last first.",
        query=ShiftQuery,
        answer=Page[Shift],
    ),
    Endpoint(
        name="getShift",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/shifts/{shift_id}",
        summary="A shift and its report: the X-report while it is open, then the Z-report.",
        parameters=ShiftPath,
        answer=ShiftShown,
        speaks=True,
    ),
    Endpoint(
        name="listStatements",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/statements",
        summary="Statements of settled business days, latest first.",
        query=StatementQuery,
        answer=Page[Statement],
    ),
    Endpoint(
        name="getStatement",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/statements/{business_date}",
        summary="The statement of a business day.",
        parameters=StatementPath,
        answer=Statement,
    ),
    Endpoint(
        name="getBalance",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/balance",
        summary="What the merchant holds now, exact at this moment.",
        answer=MerchantBalance,
    ),
)
