"""Advice for every decline: whether to retry, and the cashier's next step. test_texts.py tests the texts."""

from pos_server.core.payments.declines import ADVICE, ADVICE_CANCELED, ADVICE_EXPIRED, Advice, DeclineCode, NextStep

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


def test_every_decline_has_advice() -> None:
    assert {code: (advice.retryable, advice.next_step.value) for code, advice in ADVICE.items()} == EXPECTED


def test_advice_is_in_order_of_precedence() -> None:
    assert list(ADVICE) == list(DeclineCode)


def test_expired_and_canceled_payments_have_advice() -> None:
    assert Advice(True, NextStep.NEW_CODE) == ADVICE_EXPIRED
    assert Advice(False, NextStep.NEW_ORDER) == ADVICE_CANCELED


def test_a_new_code_is_advised_exactly_for_retryable_declines() -> None:
    for advice in (*ADVICE.values(), ADVICE_EXPIRED, ADVICE_CANCELED):
        assert advice.retryable == (advice.next_step is NextStep.NEW_CODE)


def test_every_next_step_is_used() -> None:
    assert {advice.next_step for advice in ADVICE.values()} == set(NextStep)
