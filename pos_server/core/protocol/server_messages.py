"""Server messages as msgspec structs.

Their annotations describe the fields (`described`) and validate nothing: a client must accept codes and values that a
newer server adds. The AsyncAPI document and the tables in docs/protocol.md are generated from these classes.
"""

from typing import Annotated, Any, Literal, Self, get_args, get_type_hints
from uuid import UUID

import msgspec
from msgspec import NODEFAULT, Struct
from pydantic import Field, GetCoreSchemaHandler, create_model
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function

from ..accounting.shifts import REPORT_COLUMNS, TotalKind
from ..credentials.device_keys import NONCE_BYTES, SLOT_MAX, DeviceKind
from ..errors import ErrorCode
from ..payments.payment import Purpose
from ..payments.snapshot import WalletStatus
from . import fields
from .fields import UUID_PATTERN, described

SUBPROTOCOL = "pos.v1"


class ServerStruct(Struct, frozen=True, kw_only=True, gc=False):
    """Base of every server message. To pydantic it is a model of the same fields, for documents and for clients."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Self], handler: GetCoreSchemaHandler) -> CoreSchema:
        defaults = {
            each.name: ... if each.default is NODEFAULT else each.default for each in msgspec.structs.fields(cls)
        }
        hints = get_type_hints(cls, include_extras=True)
        definitions: dict[str, Any] = {name: (hints[name], default) for name, default in defaults.items()}
        model = create_model(cls.__name__, __doc__=cls.__doc__, **definitions)
        return no_info_after_validator_function(lambda model: cls(**dict(model)), handler(model))


class Hello(ServerStruct, frozen=True, kw_only=True, gc=False):
    """First message of the server. The device signs its `nonce`; a wallet sets its clock by `server_time_ms`."""

    type: Literal["hello"] = "hello"
    protocol: Annotated[str, described("Subprotocol of this connection.", const=SUBPROTOCOL)] = SUBPROTOCOL
    nonce: Annotated[
        str,
        described(
            f"{NONCE_BYTES} random bytes in hex, new for each connection.", pattern=f"^[0-9a-f]{{{NONCE_BYTES * 2}}}$"
        ),
    ]
    server_time_ms: fields.ServerTime
    heartbeat_s: Annotated[int, described("Interval of the server's WebSocket pings, in seconds.", minimum=1)]
    authenticate_within_s: Annotated[int, described("Time limit for `authenticate`, in seconds.", minimum=1)]
    frame_bytes_max: Annotated[int, described("Maximum length of a message to the server, in bytes.", minimum=1)]


class TerminalReady(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The terminal is authenticated and may send requests.

    A disabled terminal gets `ready` too; its scans are declined, and its cancels and refunds are refused.
    """

    type: Literal["ready"] = "ready"
    reply_to: fields.ReplyTo
    server_time_ms: fields.ServerTime
    resumed: fields.Resumed
    terminal_number: fields.TerminalNumber
    merchant_name: fields.MerchantName
    store_name: fields.StoreName
    currency: Annotated[
        str, described("The only currency of this terminal, as an ISO 4217 code.", pattern="^[A-Z]{3}$")
    ]
    shift_id: Annotated[
        UUID | None, described("Id of the terminal's open shift; null if none is open.", pattern=UUID_PATTERN)
    ] = None


class WalletReady(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The wallet's device is authenticated, is notified of the wallet's payments, and may send requests.

    A frozen or closed wallet gets `ready` too. Payments that wait for the PIN follow as
    `payment.confirmation_required`, even without `since_ms`.
    """

    type: Literal["ready"] = "ready"
    reply_to: fields.ReplyTo
    server_time_ms: fields.ServerTime
    resumed: fields.Resumed
    wallet_number: Annotated[int, described("Number of the wallet.", **fields.NUMBER_BOUNDS)]
    slot: Annotated[int, described("Slot of this device.", minimum=0, maximum=SLOT_MAX)]
    currency: fields.SentCurrency
    balance_minor: fields.Balance
    pin_set: Annotated[bool, described("False: the wallet has no PIN, so ask the customer to set one.")]
    status: fields.WalletStatusValue = WalletStatus.ACTIVE.value


class Replayed(ServerStruct, frozen=True, kw_only=True, gc=False):
    """End of a replay, or of a page of it. Everything that belongs to it was sent before this message."""

    type: Literal["replayed"] = "replayed"
    reply_to: fields.ReplyTo
    since_ms: fields.ReplayedUntil
    next_cursor: fields.NextReplayCursor | None


class TerminalPaymentResult(ServerStruct, frozen=True, kw_only=True, gc=False):
    """Outcome of a payment, for the terminal. It is sent after the database has committed.

    A later result with a greater `version` replaces it: an approved payment can be canceled or refunded.
    """

    type: Literal["payment.result"] = "payment.result"
    reply_to: fields.ReplyToIfAny | None
    payment_id: fields.PaymentId
    version: fields.Version
    reference: fields.ReferenceIfAny
    amount_minor: fields.AmountIfScanned
    currency: fields.SentCurrency
    purpose: fields.PurposeValue = Purpose.SALE.value
    status: fields.StatusValue
    decline_code: fields.DeclineCodeValue | None
    retryable: Annotated[
        bool, described("True: the same customer may pay this order with a new code and a new `payment_id`.")
    ]
    next_step: fields.NextStepValue
    text: fields.CashierText
    paid_by: fields.PaidBy | None
    refunded_minor: fields.Refunded
    decided_at_ms: fields.DecidedAt


class PaymentPending(ServerStruct, frozen=True, kw_only=True, gc=False):
    """A payment waits for the customer's PIN, for the terminal. Nothing is charged or held yet.

    Its `payment.result` follows unasked, with `reply_to` null.
    """

    type: Literal["payment.pending"] = "payment.pending"
    reply_to: fields.ReplyToIfAny | None
    payment_id: fields.PaymentId
    version: fields.Version
    reference: fields.SentReference
    amount_minor: fields.SentAmount
    currency: fields.SentCurrency
    purpose: fields.PurposeValue = Purpose.SALE.value
    expires_at_ms: fields.ExpiresAt
    wallet_online: Annotated[
        bool, described("False: no device of the wallet is connected, so the customer must open the app.")
    ]
    text: fields.CashierText
    decided_at_ms: fields.DecidedAt


class PaymentList(ServerStruct, frozen=True, kw_only=True, gc=False):
    """Recent payments of this terminal, latest change first."""

    type: Literal["payments.list"] = "payments.list"
    reply_to: fields.ReplyTo
    payments: Annotated[
        tuple[TerminalPaymentResult | PaymentPending, ...],
        described("Current state of each: a complete `payment.result` or `payment.pending` with `reply_to` null."),
    ]


class TerminalRefundResult(ServerStruct, frozen=True, kw_only=True, gc=False):
    """A refund was made, for the terminal: the money is in the wallet again.

    It goes to the terminal that asked, and to the terminal of the payment if that is another one.
    """

    type: Literal["refund.result"] = "refund.result"
    reply_to: fields.ReplyToIfAny | None
    refund_id: fields.RefundId
    payment_id: fields.PaymentId
    version: fields.Version
    reference: fields.SentReference
    amount_minor: fields.SentAmount
    currency: fields.SentCurrency
    refunded_minor: fields.Refunded
    refundable_minor: fields.Refundable
    text: fields.CashierText
    decided_at_ms: fields.DecidedAt


class ShiftTotal(ServerStruct, frozen=True, kw_only=True, gc=False):
    """Count and sum of one kind."""

    kind: Annotated[str, described("Kind of the total.", enum=[kind.value for kind in TotalKind])]
    count: Annotated[int, described("Number of payments, cancels or refunds.", minimum=0)]
    amount_minor: Annotated[int, described("Sum in minor units, never negative.", minimum=0)]


class ShiftReport(ServerStruct, frozen=True, kw_only=True, gc=False):
    """Report of a shift: an X-report while the shift is open, the Z-report once it is closed.

    An X-report has the current figures. The Z-report never changes.
    """

    type: Literal["shift.report"] = "shift.report"
    reply_to: fields.ReplyTo
    report: Annotated[str, described("`X` while the shift is open, `Z` once it is closed.", enum=["X", "Z"])]
    shift_id: fields.ShiftId
    shift_number: Annotated[int, described("Number of the shift at this terminal, from 1.", **fields.NUMBER_BOUNDS)]
    terminal_number: fields.TerminalNumber
    merchant_name: fields.MerchantName
    store_name: fields.StoreName
    operator: Annotated[str, described("Name of the operator.")]
    currency: fields.SentCurrency
    opened_at_ms: Annotated[int, described("Opening time, in Unix milliseconds.", minimum=0)]
    closed_at_ms: Annotated[
        int | None, described("Closing time, in Unix milliseconds; null while the shift is open.", minimum=0)
    ]
    made_at_ms: Annotated[
        int, described("Time that the report describes; for a Z-report, the closing time.", minimum=0)
    ]
    totals: Annotated[
        tuple[ShiftTotal, ...], described("`kind`, `count` and `amount_minor` of every kind, in a fixed order.")
    ]
    net_sales_minor: Annotated[int, described("Sales less their cancels and refunds; may be negative.")]
    opening_cash_minor: Annotated[int, described("Cash in the drawer at opening, in minor units.", minimum=0)]
    expected_cash_minor: Annotated[int, described("Cash that should be in the drawer; may be negative.")]
    counted_cash_minor: Annotated[int | None, described("Counted cash; null if nobody counted.", minimum=0)]
    cash_difference_minor: Annotated[int | None, described("Counted less expected cash; null if nobody counted.")]
    text: Annotated[
        str,
        described(
            f"Report for a printer with a fixed-width font: lines of at most {REPORT_COLUMNS} columns, with times in "
            "the merchant's time zone."
        ),
    ]


class WalletPaymentResult(ServerStruct, frozen=True, kw_only=True, gc=False):
    """Outcome of a payment, for the customer. It goes to every connected device of the wallet."""

    type: Literal["payment.result"] = "payment.result"
    reply_to: fields.ReplyToIfAny | None
    payment_id: fields.PaymentId
    merchant_id: fields.MerchantId = fields.NO_MERCHANT
    version: fields.Version
    merchant_name: fields.MerchantName
    store_name: fields.StoreName
    amount_minor: fields.SentAmount
    currency: fields.SentCurrency
    purpose: fields.PurposeValue = Purpose.SALE.value
    status: fields.StatusValue
    decline_code: fields.DeclineCodeValue | None
    text: fields.CustomerText
    refunded_minor: fields.Refunded
    balance_minor: fields.Balance
    decided_at_ms: fields.DecidedAt


class ConfirmationRequired(ServerStruct, frozen=True, kw_only=True, gc=False):
    """A payment waits for the customer's PIN, for the wallet. It goes to every connected device of the wallet.

    It is sent again after a wrong PIN, with a new `version`, and to each device after its `ready`.
    """

    type: Literal["payment.confirmation_required"] = "payment.confirmation_required"
    reply_to: fields.ReplyToIfAny | None
    payment_id: fields.PaymentId
    merchant_id: fields.MerchantId = fields.NO_MERCHANT
    version: fields.Version
    merchant_name: fields.MerchantName
    store_name: fields.StoreName
    amount_minor: fields.SentAmount
    currency: fields.SentCurrency
    purpose: fields.PurposeValue = Purpose.SALE.value
    expires_at_ms: fields.ExpiresAt
    pin_tries_left: Annotated[
        int, described("Number of wrong PINs still allowed for this payment; the last one declines it.", minimum=0)
    ]
    text: fields.CustomerText
    decided_at_ms: fields.DecidedAt


class WalletRefundResult(ServerStruct, frozen=True, kw_only=True, gc=False):
    """A payment was refunded, for the customer. It goes to every connected device of the wallet."""

    type: Literal["refund.result"] = "refund.result"
    refund_id: fields.RefundId
    payment_id: fields.PaymentId
    merchant_id: fields.MerchantId = fields.NO_MERCHANT
    version: fields.Version
    merchant_name: fields.MerchantName
    store_name: fields.StoreName
    amount_minor: fields.SentAmount
    currency: fields.SentCurrency
    refunded_minor: fields.Refunded
    text: fields.CustomerText
    balance_minor: fields.Balance
    decided_at_ms: fields.DecidedAt


class PinChanged(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The wallet's PIN was set or changed. It goes to every connected device, so that no change goes unnoticed."""

    type: Literal["pin.changed"] = "pin.changed"
    reply_to: fields.ReplyToIfAny | None
    text: fields.CustomerText


class StatusChanged(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The terminal was disabled or enabled, or the wallet frozen, unfrozen or closed, through the REST API."""

    type: Literal["status.changed"] = "status.changed"
    status: fields.NewStatus
    text: Annotated[str, described("Text for the cashier or the customer.")]


class HistoryPage(ServerStruct, frozen=True, kw_only=True, gc=False):
    """Page of the wallet's payments, latest change first."""

    type: Literal["history.page"] = "history.page"
    reply_to: fields.ReplyTo
    payments: Annotated[
        tuple[WalletPaymentResult | ConfirmationRequired, ...],
        described(
            "Current state of each: a complete `payment.result` or `payment.confirmation_required` with `reply_to` "
            "null and the current `balance_minor`."
        ),
    ]
    next_cursor: fields.NextCursor | None


class Error(ServerStruct, frozen=True, kw_only=True, gc=False):
    """A message was not acted on, or its outcome is unknown. The connection stays open."""

    type: Literal["error"] = "error"
    reply_to: fields.ReplyToAtFault | None
    code: Annotated[str, described("Stable code of the error.", enum=[code.value for code in ErrorCode])]
    message: Annotated[str, described("Explanation for developers, in English. It may change.")]
    field: (
        Annotated[
            str,
            described(
                "First wrong field, nested ones with dots; with `bad_field`, `unknown_type`, `wrong_currency`, "
                "`pin_too_weak` and `pin_wrong`."
            ),
        ]
        | None
    ) = None
    retryable: Annotated[bool, described("True: the same message, sent again later, can succeed.")]
    retry_after_s: Annotated[int, described("Seconds to wait before that, if the server knows.", minimum=0)] | None = (
        None
    )


class Draining(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The server is stopping, has answered all accepted requests, and closes this connection with 4000.

    Reconnect after a random time from 0 to `reconnect_within_s` seconds.
    """

    type: Literal["draining"] = "draining"
    reconnect_within_s: Annotated[int, described("Upper bound of that time, in seconds.", minimum=1)]


ToTerminal = (
    Hello
    | TerminalReady
    | Replayed
    | TerminalPaymentResult
    | PaymentPending
    | PaymentList
    | TerminalRefundResult
    | ShiftReport
    | StatusChanged
    | Draining
    | Error
)
ToWallet = (
    Hello
    | WalletReady
    | Replayed
    | WalletPaymentResult
    | ConfirmationRequired
    | WalletRefundResult
    | PinChanged
    | HistoryPage
    | StatusChanged
    | Draining
    | Error
)
ServerMessage = ToTerminal | ToWallet
TerminalMessage = Annotated[ToTerminal, Field(discriminator="type")]
WalletMessage = Annotated[ToWallet, Field(discriminator="type")]

MESSAGES_TO: dict[DeviceKind, tuple[type[ServerMessage], ...]] = {
    DeviceKind.TERMINAL: get_args(ToTerminal),
    DeviceKind.WALLET: get_args(ToWallet),
}
