"""Advice for payments that were not approved: whether to retry, and the cashier's next step."""

from dataclasses import dataclass

from ..codes import DescribedCode
from .payment import DeclineCode


class NextStep(DescribedCode):
    """The cashier's next step after a payment that was not approved."""

    NEW_CODE = (
        "new_code",
        "Ask the customer for a new code and scan it, with the same `reference` and a new `payment_id`.",
    )
    OTHER_PAYMENT = "other_payment", "Ask for another way to pay."
    NEW_ORDER = "new_order", "Start a new order, with a new `reference`."
    HAND_OUT = "hand_out", "Hand the goods out: the order is paid already."
    WAIT = "wait", "Wait for the other payment of this order, or cancel it first."
    CALL_MANAGER = "call_manager", "Call the manager: this till or shop cannot take payments."


@dataclass(frozen=True, slots=True)
class Advice:
    """Advice to the cashier. `retryable` means that the same customer can pay this order with a new code."""

    retryable: bool
    next_step: NextStep


ADVICE: dict[DeclineCode, Advice] = {
    DeclineCode.TERMINAL_DISABLED: Advice(False, NextStep.CALL_MANAGER),
    DeclineCode.MERCHANT_INACTIVE: Advice(False, NextStep.CALL_MANAGER),
    DeclineCode.CODE_MALFORMED: Advice(True, NextStep.NEW_CODE),
    DeclineCode.CODE_INVALID: Advice(True, NextStep.NEW_CODE),
    DeclineCode.CODE_EXPIRED: Advice(True, NextStep.NEW_CODE),
    DeclineCode.CODE_USED: Advice(True, NextStep.NEW_CODE),
    DeclineCode.CANCELED: Advice(False, NextStep.NEW_ORDER),
    DeclineCode.ALREADY_PAID: Advice(False, NextStep.HAND_OUT),
    DeclineCode.ALREADY_PENDING: Advice(False, NextStep.WAIT),
    DeclineCode.WALLET_FROZEN: Advice(False, NextStep.OTHER_PAYMENT),
    DeclineCode.WALLET_CLOSED: Advice(False, NextStep.OTHER_PAYMENT),
    DeclineCode.CURRENCY_MISMATCH: Advice(False, NextStep.OTHER_PAYMENT),
    DeclineCode.AMOUNT_OVER_LIMIT: Advice(False, NextStep.OTHER_PAYMENT),
    DeclineCode.DAILY_LIMIT: Advice(False, NextStep.OTHER_PAYMENT),
    DeclineCode.INSUFFICIENT_FUNDS: Advice(False, NextStep.OTHER_PAYMENT),
    DeclineCode.BALANCE_LIMIT: Advice(False, NextStep.OTHER_PAYMENT),
    DeclineCode.RISK_REJECTED: Advice(False, NextStep.OTHER_PAYMENT),
    DeclineCode.PIN_WRONG: Advice(True, NextStep.NEW_CODE),
    DeclineCode.PIN_LOCKED: Advice(False, NextStep.OTHER_PAYMENT),
    DeclineCode.CUSTOMER_REJECTED: Advice(True, NextStep.NEW_CODE),
}

# After an expired payment the same order can be scanned again; a canceled order needs a new reference.
ADVICE_EXPIRED = Advice(True, NextStep.NEW_CODE)
ADVICE_CANCELED = Advice(False, NextStep.NEW_ORDER)
