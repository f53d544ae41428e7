"""A till for a program that waits for the keyboard, and how it tells of payments that nobody waits for any more."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

from pos_server.core.messages import TerminalPaymentResult, TerminalRefundResult
from pos_server.core.money import format_amount
from pos_server.core.payments import Status

from .console import complain
from .credentials import Credentials
from .errors import RequestRefused, RequestUnanswered
from .recovery import Recovered, RecoveredCancel, RecoveredRefund, RecoveredScan
from .terminal import TerminalClient

PATIENCE_S = 2.0
RECOVERY_PATIENCE_S = 10.0
"""How long a start waits for the outcome of earlier payments before it goes on; they are told when they are known."""

T = TypeVar("T")


class Till:
    """A TerminalClient for a program that waits for the keyboard: the session lives in a thread of its own."""

    def __init__(self, credentials: Credentials, journal: Path) -> None:
        self.client = TerminalClient(credentials, journal=journal)
        self._loop = asyncio.new_event_loop()
        self._recovered: concurrent.futures.Future[list[Recovered]] | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait(self.client.__aenter__())
        if self.client.left_open:
            self._recovered = asyncio.run_coroutine_threadsafe(self.client.recovered(), self._loop)
        return self

    def __exit__(self, *exception: object) -> None:
        self.wait(self.client.__aexit__(*exception))
        self.report_recovered()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result; says so when it takes long. Ctrl-C ends the wait and the coroutine."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            if not concurrent.futures.wait([future], PATIENCE_S).done:
                complain(f"waiting for the server: {self.client.problem or 'no answer yet'}")
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def report_recovered(self) -> None:
        """Say once, on the standard error, what became of the payments that an earlier process lost sight of."""
        if self._recovered is None:
            return
        if not concurrent.futures.wait([self._recovered], RECOVERY_PATIENCE_S).done:
            complain(f"the outcome of {self.client.left_open} earlier payments is not known yet")
            return
        for entry in self._recovered.result():
            complain(f"earlier {recovered_line(entry)}")
        self._recovered = None

    def report_late(self) -> None:
        """Say what has become known since: of the above, and of payments whose scans were given up."""
        if self._recovered is not None and self._recovered.done():
            self.report_recovered()
        while self.client.unread:
            complain(f"earlier {result_line(self.wait(self.client.result()))}")


def recovered_line(recovered: Recovered) -> str:
    """One line about what an earlier process left open, such as `order 17 of 12.50 EUR: approved`."""
    outcome = recovered.outcome
    match recovered:
        case RecoveredScan():
            what = _order(recovered.reference, recovered.amount_minor, recovered.currency)
        case RecoveredCancel(reference=None):
            what = f"cancel of payment {recovered.payment_id}"
        case RecoveredCancel():
            what = f"cancel of order {recovered.reference}"
        case RecoveredRefund():
            amount = format_amount(recovered.amount_minor, recovered.currency)
            what = f"refund of {amount} of payment {recovered.payment_id}"
    match outcome:
        case TerminalPaymentResult():
            return f"{what}: {_status(outcome)}"
        case TerminalRefundResult():
            return f"{what}: {outcome.text}"
        case RequestUnanswered():
            return f"{what}: still unknown, {outcome.reason}"
        case RequestRefused():
            return f"{what}: refused, {outcome}"


def result_line(result: TerminalPaymentResult | TerminalRefundResult) -> str:
    """One line about a payment or a refund, such as `order 17 of 12.50 EUR: approved`."""
    if isinstance(result, TerminalRefundResult):
        return f"order {result.reference}: {result.text}"
    if result.reference is None or result.amount_minor is None:
        return f"payment {result.payment_id}: {_status(result)}"
    return f"{_order(result.reference, result.amount_minor, result.currency)}: {_status(result)}"


def _order(reference: str, amount_minor: int, currency: str) -> str:
    return f"order {reference} of {format_amount(amount_minor, currency)}"


def _status(result: TerminalPaymentResult) -> str:
    is_plain = result.status == Status.APPROVED and not result.refunded_minor
    return result.status + ("" if is_plain else f", {result.text}")
