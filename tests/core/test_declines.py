"""Every decline has something to say to both people, and says whether to try again."""

import pytest

from pos_server.core.declines import DECLINE_TEXTS
from pos_server.core.payments import DeclineCode

RETRYABLE = {
    DeclineCode.TERMINAL_DISABLED: False,
    DeclineCode.MERCHANT_INACTIVE: False,
    DeclineCode.CODE_MALFORMED: True,
    DeclineCode.CODE_INVALID: True,
    DeclineCode.CODE_EXPIRED: True,
    DeclineCode.CODE_USED: True,
    DeclineCode.ALREADY_PAID: False,
    DeclineCode.WALLET_FROZEN: False,
    DeclineCode.WALLET_CLOSED: False,
    DeclineCode.CURRENCY_MISMATCH: False,
    DeclineCode.INSUFFICIENT_FUNDS: False,
}


def test_every_decline_has_its_texts_in_order_of_precedence() -> None:
    assert list(DECLINE_TEXTS) == list(DeclineCode)


def test_every_decline_says_whether_to_try_again() -> None:
    assert {code: text.retryable for code, text in DECLINE_TEXTS.items()} == RETRYABLE


@pytest.mark.parametrize("code", DeclineCode)
def test_texts_are_short_sentences_for_people(code: DeclineCode) -> None:
    for text in (DECLINE_TEXTS[code].cashier, DECLINE_TEXTS[code].customer):
        assert text[0].isupper()
        assert text.endswith(".")
        assert text.isascii()
        assert text.isprintable()
        assert len(text) <= 80
        assert "_" not in text


@pytest.mark.parametrize("code", DeclineCode)
def test_the_cashier_and_the_customer_are_told_different_things_to_do(code: DeclineCode) -> None:
    texts = DECLINE_TEXTS[code]
    same_for_both = {DeclineCode.CODE_MALFORMED, DeclineCode.ALREADY_PAID}
    assert code in same_for_both or texts.cashier != texts.customer


def test_forged_and_unknown_share_one_text_that_names_no_wallet() -> None:
    texts = DECLINE_TEXTS[DeclineCode.CODE_INVALID]
    assert texts.cashier == "The code is not valid. Ask the customer to open the wallet and show a new one."
    assert texts.customer == "The code is not valid. Open your wallet and show a new one."


@pytest.mark.parametrize(
    ("code", "cashier", "customer"),
    [
        (
            DeclineCode.INSUFFICIENT_FUNDS,
            "Not enough balance. Ask for another way to pay.",
            "Not enough balance. Top up and try again.",
        ),
        (
            DeclineCode.ALREADY_PAID,
            "This order is paid already. Do not charge again.",
            "This order is paid already.",
        ),
    ],
    ids=["insufficient_funds", "already_paid"],
)
def test_texts(code: DeclineCode, cashier: str, customer: str) -> None:
    assert (DECLINE_TEXTS[code].cashier, DECLINE_TEXTS[code].customer) == (cashier, customer)
