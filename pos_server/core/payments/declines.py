"""Reasons for a decline, and the advice that each gives: whether to retry, and the cashier's next step."""

from dataclasses import dataclass

from ..codes import DescribedCode


class DeclineCode(DescribedCode):
    """Reason for a decline, in order of precedence: the first reason that applies is reported."""

    TERMINAL_DISABLED = "terminal_disabled", "The operator has disabled this terminal."
    MERCHANT_INACTIVE = "merchant_inactive", "The merchant's account is inactive."
    CODE_MALFORMED = "code_malformed", "The scanned text is not a payment code."
    CODE_INVALID = "code_invalid", "The code is forged or far too old, or its wallet, device or key does not exist."
    CODE_EXPIRED = "code_expired", "The code is genuine but too old."
    CODE_USED = "code_used", "The code, or a later code of the same device, was spent before."
    CANCELED = "canceled", "This payment or this order was canceled before."
    ALREADY_PAID = "already_paid", "Another payment has paid this order; `paid_by` names it."
    ALREADY_PENDING = "already_pending", "Another payment of this order waits for a PIN; `paid_by` names it."
    WALLET_FROZEN = "wallet_frozen", "The wallet is frozen and cannot pay for now."
    WALLET_CLOSED = "wallet_closed", "The wallet is closed."
    CURRENCY_MISMATCH = "currency_mismatch", "The wallet holds another currency than the requested one."
    AMOUNT_OVER_LIMIT = "amount_over_limit", "The amount is over the limit of one payment, or of one top-up."
    DAILY_LIMIT = "daily_limit", "The payment would take the wallet over its daily limit."
    INSUFFICIENT_FUNDS = "insufficient_funds", "The wallet's balance is below the amount."
    BALANCE_LIMIT = "balance_limit", "The top-up would take the wallet over its maximum balance."
    RISK_REJECTED = "risk_rejected", "The server's risk rule rejected the payment."
    # Only for payments that needed a PIN.
    PIN_WRONG = "pin_wrong", "The customer entered too many wrong PINs for this payment."
    PIN_LOCKED = "pin_locked", "The wallet's PIN is locked after too many wrong PINs."
    CUSTOMER_REJECTED = "customer_rejected", "The customer rejected the payment."


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
