"""Every decline says whether to try again, and what the cashier does next. What it says in words: test_texts.py."""

from pos_server.core.payments.declines import ADVICE, ADVICE_CANCELED, ADVICE_EXPIRED, Advice, NextStep
from pos_server.core.payments.payment import DeclineCode

EXPECTED = {
    DeclineCode.TERMINAL_DISABLED: (False, "call_manager"),
    DeclineCode.MERCHANT_INACTIVE: (False, "call_manager"),
    DeclineCode.CODE_MALFORMED: (True, "new_code"),
    DeclineCode.CODE_INVALID: (True, "new_code"),
    DeclineCode.CODE_EXPIRED: (True, "new_code"),
    DeclineCode.CODE_USED: (True, "new_code"),
    DeclineCode.CANCELED: (False, "new_order"),
    DeclineCode.ALREADY_PAID: (False, "hand_out"),
    DeclineCode.ALREADY_PENDING: (False, "wait"),
    DeclineCode.WALLET_FROZEN: (False, "other_payment"),
    DeclineCode.WALLET_CLOSED: (False, "other_payment"),
    DeclineCode.CURRENCY_MISMATCH: (False, "other_payment"),
    DeclineCode.AMOUNT_OVER_LIMIT: (False, "other_payment"),
    DeclineCode.DAILY_LIMIT: (False, "other_payment"),
    DeclineCode.INSUFFICIENT_FUNDS: (False, "other_payment"),
    DeclineCode.BALANCE_LIMIT: (False, "other_payment"),
    DeclineCode.RISK_REJECTED: (False, "other_payment"),
    DeclineCode.PIN_WRONG: (True, "new_code"),
    DeclineCode.PIN_LOCKED: (False, "other_payment"),
    DeclineCode.CUSTOMER_REJECTED: (True, "new_code"),
}


def test_every_decline_has_its_advice() -> None:
    assert {code: (advice.retryable, advice.next_step.value) for code, advice in ADVICE.items()} == EXPECTED


def test_advice_stands_in_order_of_precedence() -> None:
    assert list(ADVICE) == list(DeclineCode)


def test_what_ends_without_a_decline_has_advice_too() -> None:
    assert Advice(True, NextStep.NEW_CODE) == ADVICE_EXPIRED
    assert Advice(False, NextStep.NEW_ORDER) == ADVICE_CANCELED


def test_a_new_code_is_asked_for_exactly_when_the_same_order_may_be_tried_again() -> None:
    for advice in (*ADVICE.values(), ADVICE_EXPIRED, ADVICE_CANCELED):
        assert advice.retryable == (advice.next_step is NextStep.NEW_CODE)


def test_every_next_step_is_used() -> None:
    assert {advice.next_step for advice in ADVICE.values()} == set(NextStep)
