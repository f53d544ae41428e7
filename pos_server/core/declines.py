"""What a decline means to people: a text for the cashier, a text for the customer, and whether to try again."""

from dataclasses import dataclass

from .payments import DeclineCode


@dataclass(frozen=True, slots=True)
class DeclineText:
    """`retryable`: the same customer may pay this order with a new code; otherwise something has to change first."""

    cashier: str
    customer: str
    retryable: bool


DECLINE_TEXTS: dict[DeclineCode, DeclineText] = {
    DeclineCode.TERMINAL_DISABLED: DeclineText(
        "This till is disabled. Call your manager.", "This till cannot take payments.", False
    ),
    DeclineCode.MERCHANT_INACTIVE: DeclineText(
        "This shop's account is inactive. Call your manager.", "This shop cannot take payments.", False
    ),
    DeclineCode.CODE_MALFORMED: DeclineText(
        "That is not a payment code. Scan the code in the customer's wallet.", "That is not a payment code.", True
    ),
    DeclineCode.CODE_INVALID: DeclineText(
        "The code is not valid. Ask the customer to open the wallet and show a new one.",
        "The code is not valid. Open your wallet and show a new one.",
        True,
    ),
    DeclineCode.CODE_EXPIRED: DeclineText(
        "The code has expired. Ask for a new one and scan again.", "Your code had expired. Show the new one.", True
    ),
    DeclineCode.CODE_USED: DeclineText(
        "This code was used before. Ask for a new one and scan again.",
        "Your code was used before. Show the new one.",
        True,
    ),
    DeclineCode.ALREADY_PAID: DeclineText(
        "This order is paid already. Do not charge again.", "This order is paid already.", False
    ),
    DeclineCode.WALLET_FROZEN: DeclineText(
        "The customer's wallet is frozen. Ask for another way to pay.", "Your wallet is frozen. Call support.", False
    ),
    DeclineCode.WALLET_CLOSED: DeclineText(
        "The customer's wallet is closed. Ask for another way to pay.", "Your wallet is closed.", False
    ),
    DeclineCode.CURRENCY_MISMATCH: DeclineText(
        "The wallet holds another currency. Ask for another way to pay.", "Your wallet holds another currency.", False
    ),
    DeclineCode.INSUFFICIENT_FUNDS: DeclineText(
        "Not enough balance. Ask for another way to pay.", "Not enough balance. Top up and try again.", False
    ),
}
