"""Who is told what. Literal outcomes in, the exact messages out."""

from dataclasses import replace
from uuid import UUID

import pytest

from pos_server.core.book import MerchantStatus, TerminalStatus, Till, Wallet, WalletStatus
from pos_server.core.declines import DECLINE_TEXTS
from pos_server.core.device_keys import DeviceKind
from pos_server.core.errors import ErrorCode
from pos_server.core.messages import Error, ServerMessage, TerminalPaymentResult, WalletPaymentResult
from pos_server.core.notices import ERROR_TEXTS, NotDecided, Outcome, Recipient, notices
from pos_server.core.operations import Decided, Scan
from pos_server.core.payments import DeclineCode, IdReused, Payment, Status

PAYMENT_ID = UUID("018f0000-0000-7000-8000-000000000001")
EARLIER_ID = UUID("018f0000-0000-7000-8000-000000000000")
SCAN = Scan(
    payment_id=PAYMENT_ID,
    terminal_number=11,
    merchant_id=5,
    reference="order-1",
    amount_minor=1250,
    currency="EUR",
    code="771000000001006438058199",
)
TILL = Till(TerminalStatus.ACTIVE, MerchantStatus.ACTIVE, 500, "Corner Canteen", "Main hall")
WALLET = Wallet(1_000_000_001, 900, "EUR", 8_750, WalletStatus.ACTIVE, 4)
APPROVED = Payment(
    payment_id=PAYMENT_ID,
    fingerprint=SCAN.fingerprint,
    terminal_number=11,
    merchant_id=5,
    wallet_number=1_000_000_001,
    reference="order-1",
    amount_minor=1250,
    currency="EUR",
    status=Status.APPROVED,
    decline_code=None,
    paid_by=None,
    version=1,
    changed_at_ms=1_800_000_012_345,
)
TERMINAL_11 = Recipient(DeviceKind.TERMINAL, 11)
WALLET_1 = Recipient(DeviceKind.WALLET, 1_000_000_001)

TERMINAL_APPROVED = TerminalPaymentResult(
    reply_to="m1",
    payment_id=PAYMENT_ID,
    version=1,
    reference="order-1",
    amount_minor=1250,
    currency="EUR",
    status="approved",
    decline_code=None,
    retryable=False,
    text="Paid 12.50 EUR.",
    paid_by=None,
    decided_at_ms=1_800_000_012_345,
)
WALLET_APPROVED = WalletPaymentResult(
    payment_id=PAYMENT_ID,
    version=1,
    merchant_name="Corner Canteen",
    store_name="Main hall",
    amount_minor=1250,
    currency="EUR",
    status="approved",
    decline_code=None,
    text="You paid 12.50 EUR to Corner Canteen.",
    balance_minor=8_750,
    decided_at_ms=1_800_000_012_345,
)


def declined(code: DeclineCode, *, wallet: bool, paid_by: UUID | None = None) -> Decided:
    payment = replace(
        APPROVED,
        status=Status.DECLINED,
        decline_code=code,
        wallet_number=WALLET.number if wallet else None,
        paid_by=paid_by,
    )
    return Decided(SCAN, payment, TILL, WALLET if wallet else None)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        pytest.param(
            Decided(SCAN, APPROVED, TILL, WALLET),
            [(TERMINAL_11, TERMINAL_APPROVED), (WALLET_1, WALLET_APPROVED)],
            id="approved",
        ),
        pytest.param(
            Decided(SCAN, APPROVED, TILL, replace(WALLET, balance_minor=7_000), replayed=True),
            [(TERMINAL_11, TERMINAL_APPROVED), (WALLET_1, replace(WALLET_APPROVED, balance_minor=7_000))],
            id="replayed: the stored payment, the balance of now",
        ),
        pytest.param(
            Decided(SCAN, APPROVED, TILL, None, replayed=True),
            [(TERMINAL_11, TERMINAL_APPROVED)],
            id="replayed, wallet not loaded",
        ),
        pytest.param(
            declined(DeclineCode.INSUFFICIENT_FUNDS, wallet=True),
            [
                (
                    TERMINAL_11,
                    replace(
                        TERMINAL_APPROVED,
                        status="declined",
                        decline_code="insufficient_funds",
                        retryable=False,
                        text="Not enough balance. Ask for another way to pay.",
                    ),
                ),
                (
                    WALLET_1,
                    replace(
                        WALLET_APPROVED,
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
                    TERMINAL_11,
                    replace(
                        TERMINAL_APPROVED,
                        status="declined",
                        decline_code="already_paid",
                        retryable=False,
                        text="This order is paid already. Do not charge again.",
                        paid_by=EARLIER_ID,
                    ),
                ),
                (
                    WALLET_1,
                    replace(
                        WALLET_APPROVED,
                        status="declined",
                        decline_code="already_paid",
                        text="This order is paid already.",
                    ),
                ),
            ],
            id="already paid: the till hears by which payment",
        ),
        pytest.param(
            declined(DeclineCode.CODE_INVALID, wallet=False),
            [
                (
                    TERMINAL_11,
                    replace(
                        TERMINAL_APPROVED,
                        status="declined",
                        decline_code="code_invalid",
                        retryable=True,
                        text="The code is not valid. Ask the customer to open the wallet and show a new one.",
                    ),
                )
            ],
            id="forged: no wallet is told",
        ),
        pytest.param(
            IdReused(SCAN),
            [
                (
                    TERMINAL_11,
                    Error(
                        reply_to="m1",
                        code="id_reused",
                        message=(
                            "this payment_id belongs to a payment with another body; make a new id for a new payment"
                        ),
                        retryable=False,
                    ),
                )
            ],
            id="id reused",
        ),
        pytest.param(
            NotDecided(SCAN, ErrorCode.BUSY),
            [
                (
                    TERMINAL_11,
                    Error(
                        reply_to="m1",
                        code="busy",
                        message="the server is busy and did not act on this message; send it again",
                        retryable=True,
                    ),
                )
            ],
            id="busy",
        ),
        pytest.param(
            NotDecided(SCAN, ErrorCode.UNKNOWN_OUTCOME),
            [
                (
                    TERMINAL_11,
                    Error(
                        reply_to="m1",
                        code="unknown_outcome",
                        message=("the outcome is not known yet; send the same message again with the same payment_id"),
                        retryable=True,
                    ),
                )
            ],
            id="unknown outcome",
        ),
    ],
)
def test_notices(outcome: Outcome, expected: list[tuple[Recipient, ServerMessage]]) -> None:
    assert notices(outcome, "m1") == expected


@pytest.mark.parametrize("wallet", [True, False], ids=["wallet known", "wallet unknown"])
@pytest.mark.parametrize("code", DeclineCode)
def test_every_decline_tells_each_person_their_text(code: DeclineCode, wallet: bool) -> None:
    told = dict(notices(declined(code, wallet=wallet), "m1"))
    at_till = told.pop(TERMINAL_11)
    assert isinstance(at_till, TerminalPaymentResult)
    assert (at_till.status, at_till.decline_code) == ("declined", code.value)
    assert (at_till.text, at_till.retryable) == (DECLINE_TEXTS[code].cashier, DECLINE_TEXTS[code].retryable)
    assert list(told) == ([WALLET_1] if wallet else [])
    for on_phone in told.values():
        assert isinstance(on_phone, WalletPaymentResult)
        assert (on_phone.decline_code, on_phone.text) == (code.value, DECLINE_TEXTS[code].customer)


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
    (_, till_notice), (_, wallet_notice) = notices(Decided(SCAN, payment, TILL, WALLET), "m1")
    assert isinstance(till_notice, TerminalPaymentResult)
    assert isinstance(wallet_notice, WalletPaymentResult)
    assert (till_notice.text, wallet_notice.text) == (at_till, on_phone)


def test_a_code_is_in_no_notice() -> None:
    outcomes: list[Outcome] = [
        Decided(SCAN, APPROVED, TILL, WALLET),
        *(declined(code, wallet=True) for code in DeclineCode),
        IdReused(SCAN),
        NotDecided(SCAN, ErrorCode.BUSY),
    ]
    for outcome in outcomes:
        assert SCAN.code not in repr(notices(outcome, "m1"))
        assert SCAN.code not in repr(outcome)


def test_errors_without_a_culprit_in_the_message_have_their_text_here() -> None:
    assert set(ErrorCode) - set(ERROR_TEXTS) == {ErrorCode.BAD_FIELD, ErrorCode.UNKNOWN_TYPE}
