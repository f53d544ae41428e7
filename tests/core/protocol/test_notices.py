"""Literal outcomes in, the exact messages and recipients out.

Long, because it holds each message as literal text in both languages.
"""

from typing import Any
from uuid import UUID

import pytest

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.errors import ErrorCode
from pos_server.core.payments.declines import ADVICE, DeclineCode
from pos_server.core.payments.operations import (
    Cancel,
    Confirm,
    CreateRefund,
    Decided,
    Expire,
    Operation,
    Outcome,
    Refunded,
    Refused,
    Reject,
    Scan,
)
from pos_server.core.payments.payment import Payment, Refund, Status
from pos_server.core.payments.snapshot import Acceptor, MerchantStatus, TerminalStatus, Wallet, WalletStatus
from pos_server.core.protocol.notices import (
    Recipient,
    asker_of,
    error_message,
    message_error,
    notices,
    status_notice,
)
from pos_server.core.protocol.server_messages import (
    ConfirmationRequired,
    Error,
    PaymentPending,
    ServerMessage,
    StatusChanged,
    TerminalPaymentResult,
    TerminalRefundResult,
    WalletPaymentResult,
    WalletRefundResult,
)
from pos_server.core.texts import LANGUAGES, decline_text
from tests.copies import replace

PAYMENT_ID = UUID("018f0000-0000-7000-8000-000000000001")
EARLIER_ID = UUID("018f0000-0000-7000-8000-000000000000")
REFUND_ID = UUID("018f0000-0000-7000-8000-000000000002")
NUMBER = 1_000_000_001
SCAN = Scan(
    payment_id=PAYMENT_ID,
    terminal_number=11,
    merchant_id=5,
    reference="order-1",
    amount_minor=1250,
    currency="EUR",
    code="771000000001006438058199",
)
CONFIRM = Confirm(PAYMENT_ID, 5, NUMBER, slot=2, version=1, pin_correct=True, pin_generation=1)
REJECT = Reject(PAYMENT_ID, 5, NUMBER, slot=2)
CANCEL = Cancel(11, 5, "EUR", PAYMENT_ID, None, tombstone_id=EARLIER_ID)
EXPIRE = Expire(PAYMENT_ID, 5)
REFUND_REQUEST = CreateRefund(REFUND_ID, PAYMENT_ID, merchant_id=5, terminal_number=11, amount_minor=250)
ACCEPTOR = Acceptor(TerminalStatus.ACTIVE, MerchantStatus.ACTIVE, 500, "Corner Canteen", "Main hall")
WALLET = Wallet(NUMBER, 900, "EUR", 8_750, WalletStatus.ACTIVE, 4, pin_set=True)
APPROVED = Payment(
    payment_id=PAYMENT_ID,
    fingerprint=SCAN.fingerprint,
    terminal_number=11,
    merchant_id=5,
    wallet_number=NUMBER,
    reference="order-1",
    amount_minor=1250,
    currency="EUR",
    status=Status.APPROVED,
    decline_code=None,
    paid_by=None,
    version=1,
    changed_at_ms=1_800_000_012_345,
    approved_at_ms=1_800_000_012_345,
)
PENDING = replace(APPROVED, status=Status.PENDING, approved_at_ms=None, expires_at_ms=1_800_000_072_345)
TOMBSTONE = replace(
    APPROVED, fingerprint=None, wallet_number=None, reference=None, amount_minor=0, status=Status.CANCELED,
    approved_at_ms=None,
)  # fmt: skip

TILL_11 = Recipient(DeviceKind.TERMINAL, 11)
TILL_12 = Recipient(DeviceKind.TERMINAL, 12)
WALLET_1 = Recipient(DeviceKind.WALLET, NUMBER)
ASKER = Recipient(DeviceKind.WALLET, NUMBER, slot=2)
OTHERS = Recipient(DeviceKind.WALLET, NUMBER, not_slot=2)

AT_TILL = TerminalPaymentResult(
    reply_to="m1",
    payment_id=PAYMENT_ID,
    version=1,
    reference="order-1",
    amount_minor=1250,
    currency="EUR",
    status="approved",
    decline_code=None,
    retryable=False,
    next_step=None,
    text="Paid 12.50 EUR.",
    paid_by=None,
    refunded_minor=0,
    decided_at_ms=1_800_000_012_345,
)
ON_PHONE = WalletPaymentResult(
    reply_to=None,
    payment_id=PAYMENT_ID,
    merchant_id=5,
    version=1,
    merchant_name="Corner Canteen",
    store_name="Main hall",
    amount_minor=1250,
    currency="EUR",
    status="approved",
    decline_code=None,
    text="You paid 12.50 EUR to Corner Canteen.",
    refunded_minor=0,
    balance_minor=8_750,
    decided_at_ms=1_800_000_012_345,
)
PENDING_AT_TILL = PaymentPending(
    reply_to="m1",
    payment_id=PAYMENT_ID,
    version=1,
    reference="order-1",
    amount_minor=1250,
    currency="EUR",
    expires_at_ms=1_800_000_072_345,
    wallet_online=True,
    text="Waiting for the customer's PIN.",
    decided_at_ms=1_800_000_012_345,
)
ASKED_ON_PHONE = ConfirmationRequired(
    reply_to=None,
    payment_id=PAYMENT_ID,
    merchant_id=5,
    version=1,
    merchant_name="Corner Canteen",
    store_name="Main hall",
    amount_minor=1250,
    currency="EUR",
    expires_at_ms=1_800_000_072_345,
    pin_tries_left=3,
    text="Pay 12.50 EUR to Corner Canteen? Enter your PIN.",
    decided_at_ms=1_800_000_012_345,
)
REFUND = Refund(REFUND_ID, PAYMENT_ID, 5, 11, NUMBER, 250, "EUR", created_at_ms=1_800_000_099_000)
REFUNDED = Refunded(
    REFUND_REQUEST,
    REFUND,
    replace(APPROVED, version=2, refunded_minor=250, refunds=1, changed_at_ms=1_800_000_099_000),
    ACCEPTOR,
    replace(WALLET, balance_minor=9_000),
)
REFUND_AT_TILL = TerminalRefundResult(
    reply_to="m1",
    refund_id=REFUND_ID,
    payment_id=PAYMENT_ID,
    version=2,
    reference="order-1",
    amount_minor=250,
    currency="EUR",
    refunded_minor=250,
    refundable_minor=1000,
    text="Refunded 2.50 EUR.",
    decided_at_ms=1_800_000_099_000,
)
REFUND_ON_PHONE = WalletRefundResult(
    refund_id=REFUND_ID,
    payment_id=PAYMENT_ID,
    merchant_id=5,
    version=2,
    merchant_name="Corner Canteen",
    store_name="Main hall",
    amount_minor=250,
    currency="EUR",
    refunded_minor=250,
    text="Corner Canteen refunded 2.50 EUR.",
    balance_minor=9_000,
    decided_at_ms=1_800_000_099_000,
)


def sent(
    outcome: Outcome, reply_to: str | None = "m1", *, language: str = "en", wallet_online: bool = True
) -> list[tuple[Recipient, ServerMessage]]:
    return [
        (notice.recipient, notice.render(language))
        for notice in notices(outcome, reply_to, wallet_online=wallet_online)
    ]


def declined(code: DeclineCode, *, wallet: bool, paid_by: UUID | None = None) -> Decided:
    payment = replace(
        APPROVED,
        status=Status.DECLINED,
        decline_code=code,
        wallet_number=WALLET.number if wallet else None,
        paid_by=paid_by,
        approved_at_ms=None,
    )
    return Decided(SCAN, payment, ACCEPTOR, WALLET if wallet else None)


# --- scans


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        pytest.param(
            Decided(SCAN, APPROVED, ACCEPTOR, WALLET), [(TILL_11, AT_TILL), (WALLET_1, ON_PHONE)], id="approved"
        ),
        pytest.param(
            Decided(SCAN, APPROVED, ACCEPTOR, replace(WALLET, balance_minor=7_000), replayed=True),
            [(TILL_11, AT_TILL), (WALLET_1, replace(ON_PHONE, balance_minor=7_000))],
            id="replayed: the stored payment, the current balance",
        ),
        pytest.param(
            Decided(SCAN, APPROVED, ACCEPTOR, None, replayed=True),
            [(TILL_11, AT_TILL)],
            id="replayed, wallet not loaded",
        ),
        pytest.param(
            Decided(SCAN, PENDING, ACCEPTOR, WALLET, pin_tries_left=3),
            [(TILL_11, PENDING_AT_TILL), (WALLET_1, ASKED_ON_PHONE)],
            id="pending",
        ),
        pytest.param(
            Decided(SCAN, PENDING, ACCEPTOR, replace(WALLET, pin_set=False), pin_tries_left=3),
            [
                (TILL_11, PENDING_AT_TILL),
                (
                    WALLET_1,
                    replace(ASKED_ON_PHONE, text="Pay 12.50 EUR to Corner Canteen? Set a PIN first, then enter it."),
                ),
            ],
            id="pending, and the wallet has no PIN yet",
        ),
        pytest.param(
            Decided(SCAN, PENDING, ACCEPTOR, WALLET, pin_tries_left=3, replayed=True),
            [(TILL_11, PENDING_AT_TILL), (WALLET_1, ASKED_ON_PHONE)],
            id="replayed while pending: both are notified again",
        ),
        pytest.param(
            declined(DeclineCode.INSUFFICIENT_FUNDS, wallet=True),
            [
                (
                    TILL_11,
                    replace(
                        AT_TILL,
                        status="declined",
                        decline_code="insufficient_funds",
                        next_step="other_payment",
                        text="Not enough balance. Ask for another way to pay.",
                    ),
                ),
                (
                    WALLET_1,
                    replace(
                        ON_PHONE,
                        status="declined",
                        decline_code="insufficient_funds",
                        text="Not enough balance. Top up and try again.",
                    ),
                ),
            ],
            id="insufficient funds",
        ),
        pytest.param(
            declined(DeclineCode.ALREADY_PAID, wallet=True, paid_by=EARLIER_ID),
            [
                (
                    TILL_11,
                    replace(
                        AT_TILL,
                        status="declined",
                        decline_code="already_paid",
                        next_step="hand_out",
                        text="This order is paid already. Do not charge again.",
                        paid_by=EARLIER_ID,
                    ),
                ),
                (
                    WALLET_1,
                    replace(
                        ON_PHONE, status="declined", decline_code="already_paid", text="This order is paid already."
                    ),
                ),
            ],
            id="already paid: the till learns by which payment",
        ),
        pytest.param(
            declined(DeclineCode.CODE_INVALID, wallet=False),
            [
                (
                    TILL_11,
                    replace(
                        AT_TILL,
                        status="declined",
                        decline_code="code_invalid",
                        retryable=True,
                        next_step="new_code",
                        text="The code is not valid. Ask the customer to open the wallet and show a new one.",
                    ),
                )
            ],
            id="forged: no wallet is notified",
        ),
    ],
)
def test_a_scan(outcome: Outcome, expected: list[tuple[Recipient, ServerMessage]]) -> None:
    assert sent(outcome) == expected


def test_a_till_learns_that_its_customer_is_offline() -> None:
    (_, at_till), (_, on_phone) = sent(Decided(SCAN, PENDING, ACCEPTOR, WALLET, pin_tries_left=3), wallet_online=False)
    assert at_till == replace(
        PENDING_AT_TILL, wallet_online=False, text="Ask the customer to open the wallet and enter the PIN."
    )
    assert on_phone == ASKED_ON_PHONE


@pytest.mark.parametrize("wallet", [True, False], ids=["wallet known", "wallet unknown"])
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("code", DeclineCode)
def test_every_decline_has_a_text_for_each_person(code: DeclineCode, language: str, wallet: bool) -> None:
    messages = dict(sent(declined(code, wallet=wallet), language=language))
    at_till = messages.pop(TILL_11)
    assert isinstance(at_till, TerminalPaymentResult)
    assert (at_till.status, at_till.decline_code) == ("declined", code.value)
    assert (at_till.text, at_till.retryable) == (decline_text(language, "cashier", code), ADVICE[code].retryable)
    assert at_till.next_step == ADVICE[code].next_step.value
    assert list(messages) == ([WALLET_1] if wallet else [])
    for on_phone in messages.values():
        assert isinstance(on_phone, WalletPaymentResult)
        assert (on_phone.decline_code, on_phone.text) == (code.value, decline_text(language, "customer", code))


# --- the PIN step


def test_a_right_pin_notifies_the_till_the_asking_device_and_the_others() -> None:
    approved = Decided(CONFIRM, replace(APPROVED, version=2), ACCEPTOR, WALLET)
    assert sent(approved) == [
        (TILL_11, replace(AT_TILL, reply_to=None, version=2)),
        (ASKER, replace(ON_PHONE, reply_to="m1", version=2)),
        (OTHERS, replace(ON_PHONE, version=2)),
    ]


def test_a_wrong_pin_is_not_sent_to_the_till() -> None:
    asked_again = replace(ASKED_ON_PHONE, version=2, pin_tries_left=2, text="Wrong PIN. Tries left: 2.")
    wrong = replace(PENDING, version=2, pin_failures=1)
    assert sent(Decided(CONFIRM, wrong, ACCEPTOR, WALLET, pin_tries_left=2)) == [
        (ASKER, replace(asked_again, reply_to="m1")),
        (OTHERS, asked_again),
    ]


@pytest.mark.parametrize("operation", [CONFIRM, REJECT], ids=["confirm", "reject"])
def test_a_repeated_answer_goes_to_the_asking_phone_alone(operation: Confirm | Reject) -> None:
    assert sent(Decided(operation, APPROVED, ACCEPTOR, WALLET, replayed=True)) == [
        (ASKER, replace(ON_PHONE, reply_to="m1"))
    ]


def test_a_rejection_goes_to_all() -> None:
    rejected = declined(DeclineCode.CUSTOMER_REJECTED, wallet=True)
    assert [(to, getattr(message, "reply_to", None)) for to, message in sent(replace(rejected, operation=REJECT))] == [
        (TILL_11, None),
        (ASKER, "m1"),
        (OTHERS, None),
    ]


def test_an_expiry_goes_to_both_sides_and_answers_nobody() -> None:
    expired = replace(PENDING, status=Status.EXPIRED, version=2)
    assert sent(Decided(EXPIRE, expired, ACCEPTOR, WALLET), None) == [
        (
            TILL_11,
            replace(
                AT_TILL,
                reply_to=None,
                version=2,
                status="expired",
                retryable=True,
                next_step="new_code",
                text="The customer did not confirm in time. Nothing is charged: scan a new code.",
            ),
        ),
        (
            WALLET_1,
            replace(
                ON_PHONE,
                version=2,
                status="expired",
                text="The payment to Corner Canteen was not confirmed in time. Nothing was charged.",
            ),
        ),
    ]


# --- cancels and refunds

CANCELED_AT_TILL: dict[str, Any] = {"version": 2, "status": "canceled", "next_step": "new_order"}


def test_a_cancel_of_an_approved_payment_says_that_the_money_went_back() -> None:
    canceled = replace(APPROVED, status=Status.CANCELED, version=2)
    assert sent(Decided(CANCEL, canceled, ACCEPTOR, WALLET)) == [
        (TILL_11, replace(AT_TILL, **CANCELED_AT_TILL, text="Canceled. 12.50 EUR went back to the customer.")),
        (
            WALLET_1,
            replace(
                ON_PHONE,
                version=2,
                status="canceled",
                text="Corner Canteen canceled the payment. 12.50 EUR came back.",
            ),
        ),
    ]


def test_a_cancel_of_a_pending_payment_says_that_nothing_was_charged() -> None:
    canceled = replace(PENDING, status=Status.CANCELED, version=2)
    (_, at_till), (_, on_phone) = sent(Decided(CANCEL, canceled, ACCEPTOR, WALLET))
    assert at_till == replace(AT_TILL, **CANCELED_AT_TILL, text="Canceled. Nothing is charged.")
    assert on_phone == replace(
        ON_PHONE, version=2, status="canceled", text="Corner Canteen canceled the payment. Nothing was charged."
    )


def test_a_cancel_by_another_till_goes_to_the_till_of_the_payment_too() -> None:
    canceled = replace(APPROVED, status=Status.CANCELED, version=2)
    by_12 = replace(CANCEL, terminal_number=12)
    recipients = [(to, message.reply_to) for to, message in sent(Decided(by_12, canceled, ACCEPTOR, WALLET))]  # type: ignore[union-attr]
    assert recipients == [(TILL_12, "m1"), (TILL_11, None), (WALLET_1, None)]


def test_a_repeated_cancel_is_answered_to_the_asker_alone() -> None:
    canceled = replace(APPROVED, status=Status.CANCELED, version=2)
    assert [to for to, _ in sent(Decided(CANCEL, canceled, ACCEPTOR, WALLET, replayed=True))] == [TILL_11]


def test_a_tombstone_has_neither_amount_nor_reference() -> None:
    assert sent(Decided(CANCEL, TOMBSTONE, ACCEPTOR, None)) == [
        (
            TILL_11,
            replace(
                AT_TILL,
                reference=None,
                amount_minor=None,
                status="canceled",
                next_step="new_order",
                text="Canceled. Nothing is charged.",
            ),
        )
    ]


def test_a_refund_goes_to_the_till_and_the_wallet() -> None:
    assert sent(REFUNDED) == [(TILL_11, REFUND_AT_TILL), (WALLET_1, REFUND_ON_PHONE)]


def test_a_refund_by_another_till_goes_to_the_till_of_the_payment_too() -> None:
    by_12 = replace(REFUNDED, operation=replace(REFUND_REQUEST, terminal_number=12))
    assert sent(by_12) == [
        (TILL_12, REFUND_AT_TILL),
        (TILL_11, replace(REFUND_AT_TILL, reply_to=None)),
        (WALLET_1, REFUND_ON_PHONE),
    ]


def test_a_refund_through_the_api_answers_no_device() -> None:
    by_api = replace(REFUNDED, operation=replace(REFUND_REQUEST, terminal_number=None))
    assert sent(by_api, None) == [(TILL_11, replace(REFUND_AT_TILL, reply_to=None)), (WALLET_1, REFUND_ON_PHONE)]


def test_a_repeated_refund_is_answered_to_the_asker_alone() -> None:
    assert sent(replace(REFUNDED, replayed=True)) == [(TILL_11, REFUND_AT_TILL)]


def test_a_refunded_payment_says_how_much_came_back() -> None:
    (_, at_till), (_, on_phone) = sent(Decided(SCAN, REFUNDED.payment, ACCEPTOR, WALLET, replayed=True))
    assert at_till == replace(
        AT_TILL,
        version=2,
        text="Paid 12.50 EUR, of which 2.50 EUR was refunded.",
        refunded_minor=250,
        decided_at_ms=1_800_000_099_000,
    )
    assert isinstance(on_phone, WalletPaymentResult)
    assert on_phone.text == "You paid 12.50 EUR to Corner Canteen, of which 2.50 EUR came back."


# --- refusals


@pytest.mark.parametrize(
    ("operation", "recipient"),
    [(SCAN, TILL_11), (CANCEL, TILL_11), (REFUND_REQUEST, TILL_11), (CONFIRM, ASKER), (REJECT, ASKER)],
    ids=["scan", "cancel", "refund", "confirm", "reject"],
)
@pytest.mark.parametrize("code", ErrorCode)
def test_a_refusal_goes_to_the_asker(code: ErrorCode, operation: Operation, recipient: Recipient) -> None:
    error = Error(reply_to="m1", code=code.value, message=code.description, retryable=code.retryable)
    assert sent(Refused(operation, code)) == [(recipient, error)]
    assert error_message(message_error(code, "m1")) == error


@pytest.mark.parametrize("operation", [EXPIRE, replace(REFUND_REQUEST, terminal_number=None)], ids=["sweeper", "API"])
def test_a_refusal_without_an_asker_goes_to_nobody(operation: Operation) -> None:
    assert asker_of(operation) is None
    assert sent(Refused(operation, ErrorCode.BUSY), None) == []


def test_a_scan_through_the_api_is_not_refused_at_its_till() -> None:
    assert sent(Refused(SCAN, ErrorCode.ID_REUSED), None) == []


# --- texts


@pytest.mark.parametrize(
    ("amount_minor", "currency", "at_till", "on_phone"),
    [
        (1, "EUR", "Paid 0.01 EUR.", "You paid 0.01 EUR to Corner Canteen."),
        (1250, "JPY", "Paid 1250 JPY.", "You paid 1250 JPY to Corner Canteen."),
        (1250, "KWD", "Paid 1.250 KWD.", "You paid 1.250 KWD to Corner Canteen."),
    ],
)
def test_amounts_are_written_in_their_currency(amount_minor: int, currency: str, at_till: str, on_phone: str) -> None:
    payment = replace(APPROVED, amount_minor=amount_minor, currency=currency)
    texts = [getattr(message, "text", None) for _, message in sent(Decided(SCAN, payment, ACCEPTOR, WALLET))]
    assert texts == [at_till, on_phone]


def test_a_notice_is_rendered_in_the_language_of_the_device() -> None:
    at_till, on_phone = notices(Decided(SCAN, APPROVED, ACCEPTOR, WALLET), "m1")
    assert getattr(at_till.render("zh"), "text", None) == "\u5df2\u6536\u6b3e 12.50 EUR\u3002"
    assert at_till.render("en") == AT_TILL
    assert on_phone.render("en") == ON_PHONE


@pytest.mark.parametrize(
    ("status", "kind", "key", "in_english"),
    [
        (TerminalStatus.ACTIVE, DeviceKind.TERMINAL, "cashier.terminal_active", "This till can take payments again."),
        (
            TerminalStatus.DISABLED,
            DeviceKind.TERMINAL,
            "cashier.terminal_disabled",
            "This till is disabled. Call your manager.",
        ),
        (WalletStatus.ACTIVE, DeviceKind.WALLET, "customer.wallet_active", "Your wallet can be used again."),
        (WalletStatus.FROZEN, DeviceKind.WALLET, "customer.wallet_frozen", "Your wallet is frozen. Call support."),
        (WalletStatus.CLOSED, DeviceKind.WALLET, "customer.wallet_closed", "Your wallet is closed."),
    ],
)
def test_a_new_status_goes_to_all_devices_of_the_terminal_or_the_wallet(
    status: TerminalStatus | WalletStatus, kind: DeviceKind, key: str, in_english: str
) -> None:
    notice = status_notice(11, status)
    assert notice.recipient == Recipient(kind, 11)
    assert notice.render("en") == StatusChanged(status=status.value, text=in_english)
    assert notice.render("zh") == StatusChanged(status=status.value, text=LANGUAGES["zh"][key])


def test_a_code_is_in_no_notice() -> None:
    outcomes: list[Outcome] = [
        Decided(SCAN, APPROVED, ACCEPTOR, WALLET),
        *(declined(code, wallet=True) for code in DeclineCode),
        Refused(SCAN, ErrorCode.ID_REUSED),
        Refused(SCAN, ErrorCode.BUSY),
    ]
    for outcome in outcomes:
        assert SCAN.code not in repr(sent(outcome))
        assert SCAN.code not in repr(outcome)
