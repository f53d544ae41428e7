"""Endpoints of the role `merchant`: shifts, settlement statements and the balance."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ..accounting.shifts import REPORT_COLUMNS, TotalKind
from ..credentials.api_keys import Role
from ..money import Currency
from .endpoints import Endpoint, Kind
from .fields import Id, Minor, Page, Paging, Parameters, Resource, SerialId, SumMinor, TerminalNumber, Time

_Count = Annotated[int, Field(ge=0, description="Number of operations.")]
_Date = Annotated[
    str,
    StringConstraints(pattern=r"^\d{4}-\d\d-\d\d$"),
    Field(description="Business day, such as 2026-03-02.", json_schema_extra={"format": "date"}),
]


class Shift(Resource):
    """A shift at a terminal."""

    shift_id: Id
    shift_number: Annotated[int, Field(ge=1, description="Sequence number of the shift at its terminal.")]
    terminal_number: TerminalNumber
    operator: str
    currency: Currency
    opened_at: Time
    closed_at: Annotated[Time | None, Field(description="Time of the close; null while the shift is open.")]
    opening_cash_minor: Minor
    counted_cash_minor: Annotated[Minor | None, Field(description="Cash counted at the close; null: not counted.")]


class ShiftTotal(Resource):
    """A total of a shift report."""

    kind: Annotated[str, Field(description="Kind of operation.", json_schema_extra={"enum": [*map(str, TotalKind)]})]
    count: _Count
    amount_minor: SumMinor


class ShiftReport(Shift):
    """A shift and its report, as in the message `shift.report`."""

    report: Annotated[
        Literal["X", "Z"], Field(description="X while the shift is open; Z, which is final, once closed.")
    ]
    merchant_name: str
    store_name: str
    made_at: Annotated[Time, Field(description="Time the report describes; for a Z-report, when the shift closed.")]
    totals: tuple[ShiftTotal, ...]
    net_sales_minor: Annotated[SumMinor, Field(description="Sales minus cancels and refunds.")]
    expected_cash_minor: Annotated[SumMinor, Field(description="Cash expected in the drawer.")]
    cash_difference_minor: Annotated[
        SumMinor | None, Field(description="Counted cash minus expected cash; null: not counted.")
    ]
    text: Annotated[
        str,
        Field(
            description=f"Printable report in the language of `Accept-Language`, in lines of at most {REPORT_COLUMNS} "
            "columns; a CJK character takes two columns."
        ),
    ]


class ShiftPath(Parameters):
    """A shift in the path."""

    shift_id: Id


class ShiftQuery(Paging):
    """Filters for shifts."""

    terminal_number: TerminalNumber | None = None


class Statement(Resource):
    """Settlement of a merchant's business day: the movements on its account and the payout, in `currency`.

    `net` is sales minus cancels, refunds and fees, plus returned fees. `closing` is opening plus net minus the payout.
    """

    business_date: _Date
    currency: Currency
    starts_at: Annotated[Time, Field(description="Start of the business day, RFC 3339 in UTC.")]
    ends_at: Annotated[Time, Field(description="End of the business day, exclusive, RFC 3339 in UTC.")]
    opening_minor: Annotated[SumMinor, Field(description="Balance at the start of the day, carried from the last day.")]
    sales: Annotated[_Count, Field(description="Number of sales.")]
    sales_minor: Annotated[SumMinor, Field(description="Sum of the sales.")]
    cancels: Annotated[_Count, Field(description="Number of canceled sales.")]
    cancels_minor: Annotated[SumMinor, Field(description="Sum of the canceled sales.")]
    refunds: Annotated[_Count, Field(description="Number of refunds.")]
    refunds_minor: Annotated[SumMinor, Field(description="Sum of the refunds.")]
    fees_minor: Annotated[SumMinor, Field(description="Fees charged.")]
    fees_returned_minor: Annotated[SumMinor, Field(description="Fees returned for cancels and refunds.")]
    net_minor: Annotated[SumMinor, Field(description="Net result of the day; may be negative.")]
    paid_out_minor: Annotated[SumMinor, Field(description="Payout to the merchant.")]
    closing_minor: Annotated[SumMinor, Field(description="Balance after the payout; negative if owed by the merchant.")]


class StatementPath(Parameters):
    """A business day in the path."""

    business_date: _Date


class StatementQuery(Paging):
    """Filters for statements."""

    business_date: Annotated[_Date | None, Field(description="Business day, such as 2026-03-02.")] = None


class MerchantBalance(Resource):
    """The merchant's current balance: the amount owed to the merchant. A negative balance is owed by the merchant."""

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
        summary="List shifts, most recently opened first.",
        query=ShiftQuery,
        response=Page[Shift],
    ),
    Endpoint(
        name="getShift",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/shifts/{shift_id}",
        summary="Get a shift and its report: the X-report while it is open, the Z-report once it is closed.",
        parameters=ShiftPath,
        response=ShiftReport,
        localized=True,
    ),
    Endpoint(
        name="listStatements",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/statements",
        summary="List the statements of settled business days, latest first.",
        query=StatementQuery,
        response=Page[Statement],
    ),
    Endpoint(
        name="getStatement",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/statements/{business_date}",
        summary="Get the statement of a business day.",
        parameters=StatementPath,
        response=Statement,
    ),
    Endpoint(
        name="getBalance",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/balance",
        summary="Get the merchant's current balance.",
        response=MerchantBalance,
    ),
)
