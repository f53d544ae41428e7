"""Field types of the messages: those of both directions first, then those that only the server sends."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, StringConstraints

from ..money import MAX_AMOUNT_MINOR
from ..payments.declines import DeclineCode, NextStep
from ..payments.payment import Purpose, Status
from ..payments.snapshot import TerminalStatus, WalletStatus

MESSAGE_ID_CHARS_MAX = 64
REFERENCE_CHARS_MAX = 64
PRINTABLE_PATTERN = r"^[!-~](?:[ -~]*[!-~])?$"
UUID_PATTERN = r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
REPLAY_CURSOR_PATTERN = r"^[0-9]{1,15}\.[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.[0-9]{1,15}$"
# Cursors of older servers have no merchant at the end.
CURSOR_PATTERN = r"^[0-9]{1,15}\.[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:\.[0-9]{1,16})?$"


def described(description: str, **schema: Any) -> Any:
    """Describe a field, with more keywords of JSON Schema, without validating it."""
    return Field(description=description, json_schema_extra=schema)


MessageId = Annotated[
    str,
    StringConstraints(max_length=MESSAGE_ID_CHARS_MAX, pattern=PRINTABLE_PATTERN),
    Field(description="Id of this message, chosen by the client: printable ASCII. The answer has it as `reply_to`."),
]
Reference = Annotated[
    str,
    StringConstraints(max_length=REFERENCE_CHARS_MAX, pattern=PRINTABLE_PATTERN),
    Field(description="Order number of the merchant: printable ASCII. An order is paid at most once."),
]
PaymentId = Annotated[
    UUID,
    described(
        "Permanent id of the payment, made by the till, unique per merchant; preferably a UUIDv7.",
        pattern=UUID_PATTERN,
    ),
]
ShiftId = Annotated[
    UUID,
    described(
        "Permanent id of the shift, made by the till, unique per merchant; preferably a UUIDv7.", pattern=UUID_PATTERN
    ),
]

# Sent by the server: described, not validated.
AMOUNT_BOUNDS = {"minimum": 0, "maximum": MAX_AMOUNT_MINOR}
NUMBER_BOUNDS = {"minimum": 1, "maximum": 2**53 - 1}
MESSAGE_ID = {"maxLength": MESSAGE_ID_CHARS_MAX, "pattern": PRINTABLE_PATTERN}

ReplyTo = Annotated[str, described("`message_id` of the request that this answers.", **MESSAGE_ID)]
ReplyToIfAny = Annotated[
    str,
    described(
        "`message_id` of the request that this answers; null for an unsolicited or replayed message.", **MESSAGE_ID
    ),
]
ReplyToAtFault = Annotated[
    str, described("`message_id` of the message at fault; null if it had no valid one.", **MESSAGE_ID)
]
ServerTime = Annotated[int, described("Server time in Unix milliseconds.", minimum=0)]
SentCurrency = Annotated[str, described("Currency, as an ISO 4217 code.", pattern="^[A-Z]{3}$")]
SentAmount = Annotated[int, described("Amount in minor units of the currency.", minimum=1, maximum=MAX_AMOUNT_MINOR)]
AmountIfScanned = Annotated[
    int | None,
    described(
        "Amount in minor units of the currency; null if the payment was canceled before it was scanned.",
        minimum=1,
        maximum=MAX_AMOUNT_MINOR,
    ),
]
SentReference = Annotated[str, described("Order number of the merchant.")]
ReferenceIfAny = Annotated[
    str | None, described("Order number of the merchant; null if the payment was canceled by id before it was scanned.")
]
Balance = Annotated[int, described("Current balance, in minor units of the wallet's currency.", **AMOUNT_BOUNDS)]
Refunded = Annotated[int, described("Total refunded so far, in minor units.", **AMOUNT_BOUNDS)]
Refundable = Annotated[int, described("Amount that can still be refunded, in minor units.", **AMOUNT_BOUNDS)]
RefundId = Annotated[UUID, described("Permanent id of the refund, unique per merchant.", pattern=UUID_PATTERN)]
MerchantId = Annotated[
    int,
    described("Id of the payment's merchant. It identifies the payment together with `payment_id`.", **NUMBER_BOUNDS),
]
# The value in clients of a message from an older server, whose payment ids are unique without a merchant.
NO_MERCHANT = 0
DecidedAt = Annotated[int, described("Time of the decision, in Unix milliseconds.", minimum=0)]
ExpiresAt = Annotated[int, described("End of the time to confirm, in Unix milliseconds.", minimum=0)]
Version = Annotated[int, described("Version of the payment: the number of its changes, from 1.", minimum=1)]
PurposeValue = Annotated[str, described("Purpose of the payment.", enum=[purpose.value for purpose in Purpose])]
StatusValue = Annotated[
    str,
    described("Status of the payment.", enum=[status.value for status in Status if status is not Status.PENDING]),
]
DeclineCodeValue = Annotated[
    str,
    described("Reason for the decline; null if it is not declined.", enum=[code.value for code in DeclineCode]),
]
NextStepValue = Annotated[
    str | None,
    described("The cashier's next step; null if there is nothing to do.", enum=[*map(str, NextStep), None]),
]
PaidBy = Annotated[
    UUID,
    described(
        "Id of the payment that holds the order, with `already_paid` and `already_pending`.", pattern=UUID_PATTERN
    ),
]
NextCursor = Annotated[str, described("Cursor of the next page; null on the last page.", pattern=CURSOR_PATTERN)]
WalletStatusValue = Annotated[
    str,
    described(
        "Status of the wallet. Only an active wallet can pay and be topped up.",
        enum=[status.value for status in WalletStatus],
    ),
]
NewStatus = Annotated[
    str,
    described(
        "New status: `active` or `disabled` for a terminal; `active`, `frozen` or `closed` for a wallet.",
        enum=list(dict.fromkeys(status.value for status in (*TerminalStatus, *WalletStatus))),
    ),
]
Resumed = Annotated[
    bool,
    described(
        "True: the replay follows and ends with `replayed`, if `since_ms` was sent. False: too much was missed, so "
        "nothing is replayed until the device asks for it with `resume`."
    ),
]
NextReplayCursor = Annotated[
    str, described("Cursor of the next page; null if the replay is complete.", pattern=REPLAY_CURSOR_PATTERN)
]
ReplayedUntil = Annotated[
    int,
    described("Time up to which the device has received everything: its next `since_ms`. In Unix ms.", minimum=0),
]
TerminalNumber = Annotated[int, described("Number of the terminal.", **NUMBER_BOUNDS)]
MerchantName = Annotated[str, described("Name of the merchant.")]
StoreName = Annotated[str, described("Name of the store.")]
CashierText = Annotated[str, described("Text for the cashier.")]
CustomerText = Annotated[str, described("Text for the customer.")]
