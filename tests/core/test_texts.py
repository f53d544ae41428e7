"""Texts for people: every language has the same texts with the same placeholders."""

import string

import pytest

from pos_server.core.payments.declines import DeclineCode
from pos_server.core.texts import DEFAULT_LANGUAGE, LANGUAGES, SHIFT_LABELS, decline_text, language_of, text

ENGLISH = LANGUAGES[DEFAULT_LANGUAGE]
EVERY_TEXT = [(language, key) for language, texts in LANGUAGES.items() for key in texts]
# The values for each text. A text may omit a value, but then it does so in every language.
VALUES = {"amount", "refunded", "merchant", "tries"}


def placeholders(template: str) -> set[str]:
    return {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_same_texts(language: str) -> None:
    assert list(LANGUAGES[language]) == list(ENGLISH)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_same_labels_of_a_shift(language: str) -> None:
    labels = SHIFT_LABELS[language]
    assert list(labels) == list(SHIFT_LABELS[DEFAULT_LANGUAGE])
    assert all(label.isprintable() and label == label.strip() for label in labels.values())


@pytest.mark.parametrize(("language", "key"), EVERY_TEXT)
def test_every_language_fills_in_the_same_values(language: str, key: str) -> None:
    assert placeholders(LANGUAGES[language][key]) == placeholders(ENGLISH[key]) <= VALUES


@pytest.mark.parametrize("side", ["cashier", "customer"])
@pytest.mark.parametrize("code", DeclineCode)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_decline_has_a_text_for_both_people_that_needs_no_values(
    language: str, code: DeclineCode, side: str
) -> None:
    rendered = decline_text(language, side, code)
    assert rendered
    assert placeholders(rendered) == set()


@pytest.mark.parametrize(("language", "key"), EVERY_TEXT)
def test_texts_are_short_sentences_for_people(language: str, key: str) -> None:
    template = LANGUAGES[language][key]
    assert template.isprintable()
    assert template == template.strip()
    assert len(template) <= 90
    assert "_" not in template
    assert template[-1] in ".\u3002"
    if language == "en":
        assert template.isascii()
        assert template[0].isupper() or template.startswith("{merchant}")


@pytest.mark.parametrize("code", DeclineCode)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_cashier_and_the_customer_are_told_different_things_to_do(language: str, code: DeclineCode) -> None:
    same_for_both = {DeclineCode.CODE_MALFORMED, DeclineCode.ALREADY_PAID, DeclineCode.CANCELED}
    if code not in same_for_both:
        assert decline_text(language, "cashier", code) != decline_text(language, "customer", code)


def test_forged_and_unknown_share_one_text_that_names_no_wallet() -> None:
    code = DeclineCode.CODE_INVALID
    rendered = decline_text("en", "cashier", code)
    assert rendered == "The code is not valid. Ask the customer to open the wallet and show a new one."
    assert decline_text("en", "customer", code) == "The code is not valid. Open your wallet and show a new one."


def test_a_canceled_order_and_a_canceled_payment_are_told_apart() -> None:
    assert decline_text("en", "cashier", DeclineCode.CANCELED) == "This order was canceled. Start a new one."
    assert text("en", "cashier.canceled") == "Canceled. Nothing is charged."


@pytest.mark.parametrize(
    ("language", "key", "expected"),
    [
        ("en", "cashier.approved", "Paid 12.50 EUR."),
        ("en", "customer.approved", "You paid 12.50 EUR to Kiosk."),
        ("en", "cashier.approved_refunded", "Paid 12.50 EUR, of which 2.00 EUR was refunded."),
        ("en", "customer.confirm_again", "Wrong PIN. Tries left: 2."),
        ("zh", "cashier.approved", "\u5df2\u6536\u6b3e 12.50 EUR\u3002"),
        ("zh", "customer.approved", "\u60a8\u5df2\u5411Kiosk\u4ed8\u6b3e 12.50 EUR\u3002"),
    ],
)
def test_values_are_filled_in(language: str, key: str, expected: str) -> None:
    assert text(language, key, amount="12.50 EUR", refunded="2.00 EUR", merchant="Kiosk", tries=2) == expected


def test_a_name_with_braces_is_told_as_it_is() -> None:
    rendered = text("en", "customer.approved", amount="1.00 EUR", merchant="{Curly} {0} %s", refunded="", tries=0)
    assert rendered == "You paid 1.00 EUR to {Curly} {0} %s."


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("en-GB", "en"),
        ("zh", "zh"),
        ("zh-CN", "zh"),
        ("zh-Hans-CN", "zh"),
        ("ZH-cn", "zh"),
        ("de", "en"),
        ("de-AT", "en"),
        ("x-zh", "en"),
        ("-", "en"),
        ("", "en"),
    ],
)
def test_the_language_of_a_tag(tag: str, language: str) -> None:
    assert language_of(tag) == language
