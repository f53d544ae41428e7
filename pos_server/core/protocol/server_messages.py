"""What the server sends, as msgspec structs.

Their annotations describe it (`described`) and check nothing: a client must take codes and values that a newer server
adds.
"""

from typing import Annotated, Any, Literal, Self, get_type_hints
from uuid import UUID

import msgspec
from msgspec import NODEFAULT, Struct
from pydantic import (
    Field,
    GetCoreSchemaHandler,
    create_model,
)
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function

from ..accounting.shifts import REPORT_COLUMNS, TotalKind
from ..credentials.device_keys import NONCE_BYTES, SLOT_MAX
from ..errors import ErrorCode
from ..money import MAX_AMOUNT_MINOR
from ..payments.declines import NextStep
from ..payments.payment import DeclineCode, Purpose, Status
from ..payments.snapshot import TerminalStatus, WalletStatus
from .fields import CURSOR_PATTERN, MESSAGE_ID_CHARS_MAX, PRINTABLE_PATTERN, UUID_PATTERN, PaymentId, ShiftId, described

SUBPROTOCOL = "pos.v1"
_Number = {"minimum": 1, "maximum": 2**53 - 1}
_Currency = Annotated[str, described("ISO 4217 alphabetic code", pattern="^[A-Z]{3}$")]
_Amount = Annotated[int, described("amount in minor units of the currency", minimum=1, maximum=MAX_AMOUNT_MINOR)]
_Balance = Annotated[
    int, described("what is in the wallet now, in minor units of its currency", minimum=0, maximum=MAX_AMOUNT_MINOR)
]
_ServerTime = Annotated[int, described("the server's clock in Unix milliseconds", minimum=0)]
_DecidedAt = Annotated[int, described("when it was decided, in Unix milliseconds", minimum=0)]
_Version = Annotated[int, described("counts the changes of this payment; drop what is not newer than seen", minimum=1)]
_Status = Annotated[str, described("what became of the payment", enum=[status.value for status in Status])]
_DeclineCode = Annotated[
    str, described("why it was declined; see `x-decline-codes`", enum=[code.value for code in DeclineCode])
]
_Resumed = Annotated[bool, described("false: too much was missed to be sent again, ask for what is open")]
_NextStep = Annotated[
    str | None,
    described("what the cashier does next; null when there is nothing to do", enum=[*map(str, NextStep), None]),
]
_Purpose = Annotated[str, described("what the money is for", enum=[purpose.value for purpose in Purpose])]
_ExpiresAt = Annotated[int, described("until when the customer may confirm, in Unix milliseconds", minimum=0)]
_Refunded = Annotated[int, described("how much of it was refunded so far", minimum=0, maximum=MAX_AMOUNT_MINOR)]
_Tries = Annotated[int, described("how many wrong PINs are still allowed for it", minimum=0)]
_Merchants = Annotated[
    str | None, described("the merchant's order number; null when canceled by id before it was scanned")
]
_AmountOrNone = Annotated[
    int | None,
    described(
        "in minor units of the currency; null when it was canceled before it was scanned",
        minimum=1,
        maximum=MAX_AMOUNT_MINOR,
    ),
]
_ReplyTo = Annotated[
    str, described("the `message_id` that this answers", maxLength=MESSAGE_ID_CHARS_MAX, pattern=PRINTABLE_PATTERN)
]
_MerchantName = Annotated[str, described("who is paid")]
_WalletStatus = Annotated[
    str, described("whether the wallet can pay and be topped up", enum=[status.value for status in WalletStatus])
]
# A terminal's and a wallet's, each once.
_STATUSES = list(dict.fromkeys(status.value for status in (*TerminalStatus, *WalletStatus)))
_StoreName = Annotated[str, described("where the till stands")]


class ServerStruct(Struct, frozen=True, kw_only=True, gc=False):
    """What the server says. To pydantic it is a model with the same fields: that describes it, and clients read it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Self], handler: GetCoreSchemaHandler) -> CoreSchema:
        defaults = {
            each.name: ... if each.default is NODEFAULT else each.default for each in msgspec.structs.fields(cls)
        }
        hints = get_type_hints(cls, include_extras=True)
        definitions: dict[str, Any] = {name: (hints[name], default) for name, default in defaults.items()}
        model = create_model(cls.__name__, __doc__=cls.__doc__, **definitions)
        return no_info_after_validator_function(lambda fields: cls(**dict(fields)), handler(model))


class Hello(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The server's first message. `nonce` (hex) is to be signed; `server_time_ms` sets the wallet's clock."""

    type: Literal["hello"] = "hello"
    protocol: Annotated[str, described("the subprotocol", const=SUBPROTOCOL)] = SUBPROTOCOL
    nonce: Annotated[
        str,
        described(
            f"{NONCE_BYTES} random bytes in hex, new for each connection", pattern=f"^[0-9a-f]{{{NONCE_BYTES * 2}}}$"
        ),
    ]
    server_time_ms: _ServerTime
    heartbeat_s: Annotated[int, described("how often the server sends a WebSocket ping", minimum=1)]
    authenticate_within_s: Annotated[int, described("how long the server waits for `authenticate`", minimum=1)]
    frame_bytes_max: Annotated[int, described("the longest message that the server takes, in bytes", minimum=1)]


class TerminalReady(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The terminal is authenticated and may scan. What it missed follows, unless `resumed` says it was too much."""

    type: Literal["ready"] = "ready"
    reply_to: _ReplyTo
    server_time_ms: _ServerTime
    resumed: _Resumed
    terminal_number: Annotated[int, described("the terminal's number", **_Number)]
    merchant_name: _MerchantName
    store_name: _StoreName
    currency: _Currency
    shift_id: Annotated[
        UUID | None, described("the shift that is open here; null when there is none", pattern=UUID_PATTERN)
    ] = None


class WalletReady(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The wallet device is authenticated and will be told of its payments; first of those it missed."""

    type: Literal["ready"] = "ready"
    reply_to: _ReplyTo
    server_time_ms: _ServerTime
    resumed: _Resumed
    wallet_number: Annotated[int, described("the wallet's number", **_Number)]
    slot: Annotated[int, described("which device of the wallet", minimum=0, maximum=SLOT_MAX)]
    currency: _Currency
    balance_minor: _Balance
    pin_set: Annotated[bool, described("whether the wallet has a PIN")]
    status: _WalletStatus = WalletStatus.ACTIVE.value


class TerminalPaymentResult(ServerStruct, frozen=True, kw_only=True, gc=False):
    """What became of a payment, for the till. `paid_by` names the payment that holds an order already."""

    type: Literal["payment.result"] = "payment.result"
    reply_to: _ReplyTo | None
    payment_id: PaymentId
    version: _Version
    reference: _Merchants
    amount_minor: _AmountOrNone
    currency: _Currency
    purpose: _Purpose = Purpose.SALE.value
    status: _Status
    decline_code: _DeclineCode | None
    retryable: Annotated[bool, described("the same customer may pay this order with a new code and a new `payment_id`")]
    next_step: _NextStep
    text: Annotated[str, described("for the cashier")]
    paid_by: (
        Annotated[UUID, described("the payment that holds the order, when it is paid or pending", pattern=UUID_PATTERN)]
        | None
    )
    refunded_minor: _Refunded
    decided_at_ms: _DecidedAt


class PaymentPending(ServerStruct, frozen=True, kw_only=True, gc=False):
    """A payment waits for the customer's PIN, for the till. Its `payment.result` follows by itself."""

    type: Literal["payment.pending"] = "payment.pending"
    reply_to: _ReplyTo | None
    payment_id: PaymentId
    version: _Version
    reference: Annotated[str, described("the merchant's order number")]
    amount_minor: _Amount
    currency: _Currency
    purpose: _Purpose = Purpose.SALE.value
    expires_at_ms: _ExpiresAt
    wallet_online: Annotated[
        bool, described("false: no device of the wallet is connected, so the customer must open the app")
    ]
    text: Annotated[str, described("for the cashier")]
    decided_at_ms: _DecidedAt


class PaymentList(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The till's last payments, latest change first."""

    type: Literal["payments.list"] = "payments.list"
    reply_to: _ReplyTo
    payments: Annotated[
        tuple[TerminalPaymentResult | PaymentPending, ...], described("as they are now, each with `reply_to` null")
    ]


class TerminalRefundResult(ServerStruct, frozen=True, kw_only=True, gc=False):
    """A refund was made, for the till. `reply_to` is null for the till of the payment when another asked for it."""

    type: Literal["refund.result"] = "refund.result"
    reply_to: _ReplyTo | None
    refund_id: Annotated[UUID, described("names the refund for ever", pattern=UUID_PATTERN)]
    payment_id: PaymentId
    version: _Version
    reference: Annotated[str, described("the merchant's order number")]
    amount_minor: _Amount
    currency: _Currency
    refunded_minor: _Refunded
    refundable_minor: Annotated[int, described("what may still be refunded", minimum=0, maximum=MAX_AMOUNT_MINOR)]
    text: Annotated[str, described("for the cashier")]
    decided_at_ms: _DecidedAt


class ShiftTotal(ServerStruct, frozen=True, kw_only=True, gc=False):
    """How many of a kind, and how much."""

    kind: Annotated[str, described("what is counted", enum=[kind.value for kind in TotalKind])]
    count: Annotated[int, described("how many", minimum=0)]
    amount_minor: Annotated[int, described("their sum in minor units, never negative", minimum=0)]


class ShiftReport(ServerStruct, frozen=True, kw_only=True, gc=False):
    """What was done in a shift: the X-report while it is open, the Z-report, which never changes, once it is closed."""

    type: Literal["shift.report"] = "shift.report"
    reply_to: _ReplyTo
    report: Annotated[str, described("X while the shift is open, Z once it is closed", enum=["X", "Z"])]
    shift_id: ShiftId
    shift_number: Annotated[int, described("counts the shifts of the terminal", **_Number)]
    terminal_number: Annotated[int, described("the terminal's number", **_Number)]
    merchant_name: _MerchantName
    store_name: _StoreName
    operator: Annotated[str, described("who worked at the till")]
    currency: _Currency
    opened_at_ms: Annotated[int, described("when it was opened, in Unix milliseconds", minimum=0)]
    closed_at_ms: Annotated[
        int | None, described("when it was closed, in Unix milliseconds; null while it is open", minimum=0)
    ]
    made_at_ms: Annotated[
        int, described("what the report shows is as of then: of a Z-report, when it closed", minimum=0)
    ]
    totals: Annotated[tuple[ShiftTotal, ...], described("one of each kind, in a fixed order")]
    net_sales_minor: Annotated[int, described("sales less their cancels and refunds; may be negative")]
    opening_cash_minor: Annotated[int, described("what was in the drawer at first, in minor units", minimum=0)]
    expected_cash_minor: Annotated[int, described("what should be in the drawer now; may be negative")]
    counted_cash_minor: Annotated[int | None, described("what was counted; null when nobody did", minimum=0)]
    cash_difference_minor: Annotated[int | None, described("counted less expected; null when nobody counted")]
    text: Annotated[str, described(f"to be printed: lines of at most {REPORT_COLUMNS} columns")]


class WalletPaymentResult(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The same, for the customer: who was paid, and what is left."""

    type: Literal["payment.result"] = "payment.result"
    reply_to: _ReplyTo | None
    payment_id: PaymentId
    version: _Version
    merchant_name: _MerchantName
    store_name: _StoreName
    amount_minor: _Amount
    currency: _Currency
    purpose: _Purpose = Purpose.SALE.value
    status: _Status
    decline_code: _DeclineCode | None
    text: Annotated[str, described("for the customer")]
    refunded_minor: _Refunded
    balance_minor: _Balance
    decided_at_ms: _DecidedAt


class ConfirmationRequired(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The customer is asked for the PIN, on every device; again after a wrong one, with a new `version`."""

    type: Literal["payment.confirmation_required"] = "payment.confirmation_required"
    reply_to: _ReplyTo | None
    payment_id: PaymentId
    version: _Version
    merchant_name: _MerchantName
    store_name: _StoreName
    amount_minor: _Amount
    currency: _Currency
    purpose: _Purpose = Purpose.SALE.value
    expires_at_ms: _ExpiresAt
    pin_tries_left: _Tries
    text: Annotated[str, described("for the customer")]
    decided_at_ms: _DecidedAt


class WalletRefundResult(ServerStruct, frozen=True, kw_only=True, gc=False):
    """Money came back, for the customer."""

    type: Literal["refund.result"] = "refund.result"
    refund_id: Annotated[UUID, described("names the refund for ever", pattern=UUID_PATTERN)]
    payment_id: PaymentId
    version: _Version
    merchant_name: _MerchantName
    store_name: _StoreName
    amount_minor: _Amount
    currency: _Currency
    refunded_minor: _Refunded
    text: Annotated[str, described("for the customer")]
    balance_minor: _Balance
    decided_at_ms: _DecidedAt


class PinChanged(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The wallet's PIN was set or changed; every device hears of it, whoever did it."""

    type: Literal["pin.changed"] = "pin.changed"
    reply_to: _ReplyTo | None
    text: Annotated[str, described("for the customer")]


class StatusChanged(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The terminal was disabled or enabled, or the wallet frozen, thawed or closed; no one on this connection asked."""

    type: Literal["status.changed"] = "status.changed"
    status: Annotated[str, described("what it is from now on", enum=_STATUSES)]
    text: Annotated[str, described("for the cashier, or the customer")]


class HistoryPage(ServerStruct, frozen=True, kw_only=True, gc=False):
    """A page of the wallet's payments, latest change first."""

    type: Literal["history.page"] = "history.page"
    reply_to: _ReplyTo
    payments: Annotated[
        tuple[WalletPaymentResult | ConfirmationRequired, ...], described("as they are now, each with `reply_to` null")
    ]
    next_cursor: Annotated[str, described("asks for the next page; null on the last", pattern=CURSOR_PATTERN)] | None


class Error(ServerStruct, frozen=True, kw_only=True, gc=False):
    """A message was not acted on, or its outcome is not known; `code` is stable, `message` is for people."""

    type: Literal["error"] = "error"
    reply_to: _ReplyTo | None
    code: Annotated[str, described("stable; see `x-error-codes`", enum=[code.value for code in ErrorCode])]
    message: Annotated[str, described("for people, in English")]
    field: Annotated[str, described("the first wrong field, nested ones with dots")] | None = None
    retryable: Annotated[bool, described("whether the same message, sent again later, can succeed")]
    retry_after_s: (
        Annotated[int, described("how long to wait before that, where the server knows", minimum=0)] | None
    ) = None


class Draining(ServerStruct, frozen=True, kw_only=True, gc=False):
    """The server is about to close this connection: reconnect after a random time of up to `reconnect_within_s`."""

    type: Literal["draining"] = "draining"
    reconnect_within_s: Annotated[int, described("the bound of that time", minimum=1)]


TerminalMessage = Annotated[
    Hello
    | TerminalReady
    | TerminalPaymentResult
    | PaymentPending
    | PaymentList
    | TerminalRefundResult
    | ShiftReport
    | StatusChanged
    | Draining
    | Error,
    Field(discriminator="type"),
]
WalletMessage = Annotated[
    Hello
    | WalletReady
    | WalletPaymentResult
    | ConfirmationRequired
    | WalletRefundResult
    | PinChanged
    | HistoryPage
    | StatusChanged
    | Draining
    | Error,
    Field(discriminator="type"),
]
ServerMessage = (
    Hello
    | TerminalReady
    | WalletReady
    | TerminalPaymentResult
    | PaymentPending
    | PaymentList
    | TerminalRefundResult
    | ShiftReport
    | WalletPaymentResult
    | ConfirmationRequired
    | WalletRefundResult
    | PinChanged
    | HistoryPage
    | StatusChanged
    | Draining
    | Error
)
