"""Client messages as pydantic models. Incoming messages are validated against their annotations.

Each request names its possible `replies` and its `workload`, which bounds it. The AsyncAPI document and the tables in
docs/protocol.md are generated from these classes. Unknown fields are ignored, so that either side can be newer; unknown
types are answered with an error.
"""

from enum import Enum, auto
from typing import Annotated, ClassVar, Literal, Self, final, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from ..credentials.device_keys import SLOT_MAX, DeviceKind
from ..money import MAX_AMOUNT_MINOR, Currency, PositiveMinor
from ..texts import DEFAULT_LANGUAGE
from .fields import (
    CURSOR_PATTERN,
    REPLAY_CURSOR_PATTERN,
    UUID_PATTERN,
    MessageId,
    PaymentId,
    Reference,
    ShiftId,
    described,
)
from .server_messages import (
    ConfirmationRequired,
    Error,
    HistoryPage,
    PaymentList,
    PaymentPending,
    PinChanged,
    Replayed,
    ServerStruct,
    ShiftReport,
    TerminalPaymentResult,
    TerminalReady,
    TerminalRefundResult,
    WalletPaymentResult,
    WalletReady,
)

OPERATOR_CHARS_MAX = 40
PIN_DIGITS_MAX = 12
PAGE_MAX = 50
REPLAY_PAGE_MAX = 1000
ONE_OF = "one_of"
Pin = Annotated[str, StringConstraints(pattern=rf"^[0-9]{{4,{PIN_DIGITS_MAX}}}$")]
_Cash = Annotated[int, Field(ge=0, le=MAX_AMOUNT_MINOR)]


class Workload(Enum):
    """The work that a message causes. It decides the limits in addition to the rate of messages.

    - SUBMIT: an operation for the engine, limited by its queue.
    - QUERY: a task that waits for the database. Its rate and its number at a time are limited, because tills that poll
      too often have taken whole networks down.
    - CHECK_PIN: a task that waits for a PIN check. Its number at a time is limited.
    """

    SUBMIT = auto()
    QUERY = auto()
    CHECK_PIN = auto()


class _ClientMessage(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, hide_input_in_errors=True)
    replies: ClassVar[tuple[type[ServerStruct], ...]]
    workload: ClassVar[Workload]

    message_id: MessageId


@final
class Authenticate(_ClientMessage):
    """Prove the device's identity in answer to `hello`. Sent once, before any other message."""

    replies = (TerminalReady, WalletReady)
    workload = Workload.QUERY

    type: Literal["authenticate"] = "authenticate"
    id: Annotated[int, Field(ge=1, le=2**53 - 1, description="Number of the terminal or wallet.")]
    slot: Annotated[int, Field(ge=0, le=SLOT_MAX, description="Slot of the wallet's device; 0 for a terminal.")] = 0
    kid: Annotated[
        str,
        StringConstraints(max_length=32, pattern=r"^[A-Za-z0-9_-]+$"),
        Field(description="Name of the master key behind the device's key, as the activation returned it."),
    ]
    mac: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] = Field(
        repr=False,
        description='Proof: HMAC-SHA256(device_key, "ws-auth-1" ‖ nonce ‖ id as 8 bytes, big-endian), in hex.',
    )
    since_ms: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = Field(
        default=None,
        description="Time up to which the device has received everything (see Resuming). Null: nothing is replayed.",
    )
    language: Annotated[str, StringConstraints(max_length=35, pattern=r"^[A-Za-z0-9-]+$")] = Field(
        default=DEFAULT_LANGUAGE,
        description="Language of every `text` on this connection: a tag (RFC 5646) such as `zh-CN`.",
    )


class Resume(_ClientMessage):
    """Ask for a page of the results that the device missed, oldest change first. They come before the answer."""

    replies = (Replayed, Error)
    workload = Workload.QUERY

    type: Literal["resume"] = "resume"
    since_ms: Annotated[
        int, Field(ge=0, le=2**53 - 1, description="Time up to which the device has received everything.")
    ]
    cursor: Annotated[
        str | None,
        StringConstraints(pattern=REPLAY_CURSOR_PATTERN),
        Field(description="`next_cursor` of the previous page; null for the first page. It replaces `since_ms`."),
    ] = None
    limit: Annotated[
        int, Field(ge=1, le=REPLAY_PAGE_MAX, description="Maximum number of results. The server may send fewer.")
    ] = REPLAY_PAGE_MAX


class PaymentScan(_ClientMessage):
    """Request a payment with a scanned code. Safe to send again with the same `payment_id` until answered."""

    replies = (TerminalPaymentResult, PaymentPending, Error)
    workload = Workload.SUBMIT

    type: Literal["payment.scan"] = "payment.scan"
    payment_id: PaymentId
    reference: Reference
    amount_minor: PositiveMinor
    currency: Currency
    code: Annotated[
        str,
        Field(
            repr=False,
            description="Digits as scanned. Any string, even an empty one: text that is no code is declined, not an "
            "error.",
        ),
    ]
    entry: Annotated[
        Literal["scanned", "typed"], Field(description="Entry method of the code. A typed code always needs the PIN.")
    ] = "scanned"
    purpose: Annotated[
        Literal["sale", "top_up", "withdrawal"],
        Field(description="Purpose of the payment: a sale, cash that is paid in, or cash that is paid out."),
    ] = "sale"


class _ByIdOrReference(_ClientMessage):
    payment_id: Annotated[
        UUID | None, described("Id of the payment. Give either this or `reference`.", pattern=UUID_PATTERN)
    ] = None
    reference: Annotated[Reference | None, Field(description="Order number. Give either this or `payment_id`.")] = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.payment_id is None) == (self.reference is None):
            raise PydanticCustomError(ONE_OF, "give either payment_id or reference")
        return self


class PaymentQuery(_ByIdOrReference):
    """Ask for the current state of a payment. Any terminal of the merchant may ask."""

    replies = (TerminalPaymentResult, PaymentPending, Error)
    workload = Workload.QUERY

    type: Literal["payment.query"] = "payment.query"


class PaymentCancel(_ByIdOrReference):
    """Cancel a payment, even one that never arrived. Safe to send again until answered."""

    replies = (TerminalPaymentResult, Error)
    workload = Workload.SUBMIT

    type: Literal["payment.cancel"] = "payment.cancel"


class PaymentsRecent(_ClientMessage):
    """Ask for the terminal's own recent payments."""

    replies = (PaymentList, Error)
    workload = Workload.QUERY

    type: Literal["payments.recent"] = "payments.recent"
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX, description="Maximum number of payments.")] = 10


class RefundCreate(_ClientMessage):
    """Refund some or all of an approved payment. Safe to send again with the same `refund_id` until answered."""

    replies = (TerminalRefundResult, Error)
    workload = Workload.SUBMIT

    type: Literal["refund.create"] = "refund.create"
    refund_id: Annotated[
        UUID,
        described(
            "Permanent id of the refund, made by the till, unique per merchant; preferably a UUIDv7.",
            pattern=UUID_PATTERN,
        ),
    ]
    payment_id: PaymentId
    amount_minor: PositiveMinor


class _OfWallet(_ClientMessage):
    payment_id: PaymentId
    merchant_id: Annotated[
        int | None,
        Field(
            ge=1,
            le=2**53 - 1,
            description="`merchant_id` of the `payment.confirmation_required` on the screen. Null, as from an older "
            "wallet, is refused if the wallet has payments with this id at two merchants.",
        ),
    ] = None


class PaymentConfirm(_OfWallet):
    """Confirm a pending payment with the PIN. Safe to send again: no attempt is counted for an outdated `version`."""

    replies = (WalletPaymentResult, ConfirmationRequired, Error)
    workload = Workload.CHECK_PIN

    type: Literal["payment.confirm"] = "payment.confirm"
    version: Annotated[
        int, Field(ge=1, le=2**31 - 1, description="`version` of the `payment.confirmation_required` on the screen.")
    ]
    pin: Annotated[Pin, Field(repr=False, description="PIN as entered, 4 to 12 digits. Never store it.")]


class PaymentReject(_OfWallet):
    """Reject a pending payment for the customer. Safe to send again."""

    replies = (WalletPaymentResult, Error)
    workload = Workload.QUERY  # the merchant is looked up if the wallet does not name it

    type: Literal["payment.reject"] = "payment.reject"


class PinSet(_ClientMessage):
    """Set the wallet's PIN, or change it with the current PIN. Safe to send again with the same `request_id`."""

    replies = (PinChanged, Error)
    workload = Workload.CHECK_PIN

    type: Literal["pin.set"] = "pin.set"
    request_id: Annotated[UUID, described("Id of this change, made by the wallet.", pattern=UUID_PATTERN)]
    new_pin: Annotated[
        Pin,
        Field(
            repr=False,
            description="New PIN, 4 to 12 digits: not one digit repeated, nor digits that count up or down.",
        ),
    ]
    old_pin: Annotated[Pin | None, Field(repr=False, description="Current PIN; null if there is none.")] = None


class History(_ClientMessage):
    """Ask for a page of the wallet's payments, latest change first."""

    replies = (HistoryPage, Error)
    workload = Workload.QUERY

    type: Literal["history"] = "history"
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX, description="Maximum number of payments.")] = 20
    cursor: Annotated[
        str | None,
        StringConstraints(pattern=CURSOR_PATTERN),
        Field(description="`next_cursor` of the previous page; null for the first page."),
    ] = None


class ShiftOpen(_ClientMessage):
    """Open a shift for an operator. Safe to send again with the same `shift_id` until answered."""

    replies = (ShiftReport, Error)
    workload = Workload.QUERY

    type: Literal["shift.open"] = "shift.open"
    shift_id: ShiftId
    operator: Annotated[
        str,
        StringConstraints(max_length=OPERATOR_CHARS_MAX, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$"),
        Field(description="Name of the operator for the report; no control characters."),
    ]
    opening_cash_minor: Annotated[_Cash, Field(description="Cash in the drawer at opening, in minor units.")] = 0


class ShiftClose(_ClientMessage):
    """Close a shift and get its Z-report. Nothing is added to it afterwards. Safe to send again until answered."""

    replies = (ShiftReport, Error)
    workload = Workload.QUERY

    type: Literal["shift.close"] = "shift.close"
    shift_id: ShiftId
    counted_cash_minor: Annotated[
        _Cash | None, Field(description="Counted cash in the drawer, in minor units; null if nobody counted.")
    ] = None


class ShiftQuery(_ClientMessage):
    """Ask for the report of a shift: the X-report of an open shift, the Z-report of a closed one."""

    replies = (ShiftReport, Error)
    workload = Workload.QUERY

    type: Literal["shift.query"] = "shift.query"
    shift_id: Annotated[
        UUID | None, described("Id of a shift of this terminal; null for the open shift.", pattern=UUID_PATTERN)
    ] = None


TerminalRequest = (
    Resume
    | PaymentScan
    | PaymentQuery
    | PaymentCancel
    | PaymentsRecent
    | RefundCreate
    | ShiftOpen
    | ShiftClose
    | ShiftQuery
)
WalletRequest = Resume | PaymentConfirm | PaymentReject | PinSet | History
Request = TerminalRequest | WalletRequest
ClientMessage = Authenticate | Request

REQUESTS: dict[DeviceKind, tuple[type[Request], ...]] = {
    DeviceKind.TERMINAL: get_args(TerminalRequest),
    DeviceKind.WALLET: get_args(WalletRequest),
}
