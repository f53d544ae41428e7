"""The steps after the rush: a payment with a PIN, a cancel, and a partial refund."""

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
# Public, because it protects play money. The first run on a ledger sets it.
_PIN, _WRONG_PIN = "739154", "739145"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pair:
    """A till and the customer in front of it."""

    till_number: int
    till: TerminalClient
    customer: str
    wallet: WalletClient

    async def wallet_notice(self, payment_id: object) -> object:
        """Return the wallet's next notice about a payment. Raises TimeoutError."""
        async with asyncio.timeout(_NOTICE_TIMEOUT_S):
            while getattr(notice := await self.wallet.next_notice(), "payment_id", None) != payment_id:
                pass
        return notice


async def play_pin_cancel_refund(pair: Pair, report: Report) -> None:
    """Play each step, and report the texts at the till and on the phone."""
    report.say("\nAfter the rush:\n")
    await _pin_payment(pair, report)
    sale = await _sell(pair)
    canceled, notice = await _with_notice(pair, pair.till.cancel(payment_id=sale.payment_id), sale.payment_id)
    report.step(pair.till_number, pair.customer, "cancel", canceled.status == "canceled", canceled.text, _text(notice))
    sale = await _sell(pair)
    refund, notice = await _with_notice(pair, pair.till.refund(sale.payment_id, _REFUND_MINOR), sale.payment_id)
    as_expected = refund.refundable_minor == _SALE_MINOR - _REFUND_MINOR
    report.step(pair.till_number, pair.customer, "refund", as_expected, refund.text, _text(notice))


async def _pin_payment(pair: Pair, report: Report) -> None:
    """Pay with typed digits, which always require the PIN, and enter a wrong PIN first."""
    if not pair.wallet.pin_set:
        await pair.wallet.set_pin(_PIN)
    pending: asyncio.Future[PaymentPending] = asyncio.get_running_loop().create_future()
    scan = asyncio.create_task(
        pair.till.scan(
            code=(await pair.wallet.next_code()).digits,
            amount_minor=_PIN_PRICE_MINOR,
            reference=_reference(pair),
            typed=True,
            on_pending=lambda notice: None if pending.done() else pending.set_result(notice),
        )
    )
    async with asyncio.timeout(_NOTICE_TIMEOUT_S):
        waiting = await pending
    request = await pair.wallet_notice(waiting.payment_id)
    if not isinstance(request, ConfirmationRequired):
        raise AssertionError(f"the wallet received {type(request).__name__} instead of ConfirmationRequired")
    report.step(pair.till_number, pair.customer, "pending", True, waiting.text, request.text)
    retry = await pair.wallet.confirm(request.payment_id, request.version, _WRONG_PIN, merchant_id=request.merchant_id)
    report.step(pair.till_number, pair.customer, "wrong PIN", isinstance(retry, ConfirmationRequired), "", retry.text)
    paid = await pair.wallet.confirm(retry.payment_id, retry.version, _PIN, merchant_id=request.merchant_id)
    result = await scan
    approved = isinstance(paid, WalletPaymentResult) and (paid.status, result.status) == ("approved", "approved")
    report.step(pair.till_number, pair.customer, "PIN payment", approved, result.text, paid.text)


async def _sell(pair: Pair) -> TerminalPaymentResult:
    sale = await pair.till.scan(
        code=(await pair.wallet.next_code()).digits, amount_minor=_SALE_MINOR, reference=_reference(pair)
    )
    await pair.wallet_notice(sale.payment_id)
    return sale


async def _with_notice(pair: Pair, request: Awaitable[T], payment_id: object) -> tuple[T, object]:
    result = await request
    return result, await pair.wallet_notice(payment_id)


def _text(notice: object) -> str:
    return str(getattr(notice, "text", ""))


def _reference(pair: Pair) -> str:
    return f"{pair.till_number}-{time.time_ns() // 1_000_000}"
