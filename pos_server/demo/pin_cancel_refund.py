"""After the rush: a payment that needs the PIN, a sale that is canceled, and a part of one that is refunded."""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from pos_client import TerminalClient, WalletClient

from ..core.protocol.server_messages import (
    ConfirmationRequired,
    PaymentPending,
    TerminalPaymentResult,
    WalletPaymentResult,
)
from .report import Report

_NOTICE_TIMEOUT_S = 10.0
_PIN_PRICE_MINOR = 24_00
_SALE_MINOR = 8_40
_REFUND_MINOR = 3_00
# The play's customers have no secrets; each run finds the PIN that the first one set.
_PIN, _MISTYPED = "739154", "739145"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pair:
    """A till and the one customer in front of it."""

    till_number: int
    till: TerminalClient
    customer: str
    wallet: WalletClient

    async def told(self, payment_id: object) -> object:
        """The wallet's next notice about this payment."""
        async with asyncio.timeout(_NOTICE_TIMEOUT_S):
            while getattr(notice := await self.wallet.next_notice(), "payment_id", None) != payment_id:
                pass
        return notice


async def play_evening(pair: Pair, report: Report) -> None:
    """Each step as the till and the wallet hear of it."""
    report.say("\nAfter the rush:\n")
    await _pin_payment(pair, report)
    paid = await _sell(pair)
    canceled, told = await _both(pair, pair.till.cancel(payment_id=paid.payment_id), paid.payment_id)
    report.step(pair.till_number, pair.customer, "cancel", canceled.status == "canceled", canceled.text, _text(told))
    paid = await _sell(pair)
    refund, told = await _both(pair, pair.till.refund(paid.payment_id, _REFUND_MINOR), paid.payment_id)
    left = refund.refundable_minor == _SALE_MINOR - _REFUND_MINOR
    report.step(pair.till_number, pair.customer, "refund", left, refund.text, _text(told))


async def _pin_payment(pair: Pair, report: Report) -> None:
    """The scanner is broken, so the cashier types the digits: that always needs the PIN, which is mistyped once."""
    if not pair.wallet.pin_set:
        await pair.wallet.set_pin(_PIN)
    pending: asyncio.Future[PaymentPending] = asyncio.get_running_loop().create_future()
    scan = asyncio.create_task(
        pair.till.scan(
            code=(await pair.wallet.next_code()).digits,
            amount_minor=_PIN_PRICE_MINOR,
            reference=_reference(pair),
            typed=True,
            on_pending=lambda told: None if pending.done() else pending.set_result(told),
        )
    )
    async with asyncio.timeout(_NOTICE_TIMEOUT_S):
        waiting = await pending
    asked = await pair.told(waiting.payment_id)
    if not isinstance(asked, ConfirmationRequired):
        raise AssertionError(f"the wallet was told {type(asked).__name__}")
    report.step(pair.till_number, pair.customer, "pending", True, waiting.text, asked.text)
    again = await pair.wallet.confirm(asked.payment_id, asked.version, _MISTYPED)
    report.step(pair.till_number, pair.customer, "wrong PIN", isinstance(again, ConfirmationRequired), "", again.text)
    paid = await pair.wallet.confirm(again.payment_id, again.version, _PIN)
    result = await scan
    fine = isinstance(paid, WalletPaymentResult) and (paid.status, result.status) == ("approved", "approved")
    report.step(pair.till_number, pair.customer, "PIN payment", fine, result.text, paid.text)


async def _sell(pair: Pair) -> TerminalPaymentResult:
    paid = await pair.till.scan(
        code=(await pair.wallet.next_code()).digits, amount_minor=_SALE_MINOR, reference=_reference(pair)
    )
    await pair.told(paid.payment_id)
    return paid


async def _both(pair: Pair, request: Awaitable[T], payment_id: object) -> tuple[T, object]:
    answer = await request
    return answer, await pair.told(payment_id)


def _text(notice: object) -> str:
    return str(getattr(notice, "text", ""))


def _reference(pair: Pair) -> str:
    return f"{pair.till_number}-{time.time_ns() // 1_000_000}"
