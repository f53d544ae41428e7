"""A till for a program that waits for the keyboard, and how it tells of payments that nobody waits for any more."""

import asyncio
import concurrent.futures
import select
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import UUID

from pos_server.core.money import format_amount
from pos_server.core.payments.payment import Status
from pos_server.core.protocol.server_messages import StatusChanged, TerminalPaymentResult, TerminalRefundResult

from ..device.credentials import Credentials
from ..errors import ClientError, RequestRefused, RequestUnanswered
from ..terminal.client import TerminalClient
from ..terminal.recovery import Recovered, RecoveredCancel, RecoveredRefund, RecoveredScan
from .console import complain, printable

PATIENCE_S = 2.0
KEYBOARD_CHECK_S = 0.2
RECOVERY_PATIENCE_S = 10.0
"""How long a start waits for the outcome of earlier payments before it goes on; they are told when they are known."""

T = TypeVar("T")


class LeftByCashier(Exception):
    """The cashier does not want to wait any longer."""


class Till:
    """A TerminalClient for a program that waits for the keyboard: the session lives in a thread of its own."""

    def __init__(self, credentials: Credentials, journal: Path | None, *, language: str = "en") -> None:
        self.client = TerminalClient(credentials, journal=journal, language=language, on_status=_say_status)
        self.waits_for_customer = False
        """Set it while the server has answered and a customer has not."""
        self._loop = asyncio.new_event_loop()
        self._recovered: concurrent.futures.Future[list[Recovered]] | None = None
        self._canceling: dict[UUID, concurrent.futures.Future[TerminalPaymentResult]] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait(self.client.__aenter__())
        if self.client.left_open:
            self._recovered = self.start(self.client.recovered())
        return self

    def __exit__(self, *exception: object) -> None:
        self.wait(self.client.__aexit__(*exception))
        self.report_recovered()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine besides."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def wait(self, coroutine: Coroutine[Any, Any, T], on_line: Callable[[str], bool] | None = None) -> T:
        """The coroutine's result; says so when it takes long. Ctrl-C ends the wait and the coroutine.

        Lines that are typed meanwhile go to `on_line`, where the input is a terminal; when it returns True, that ends
        both too. Raises LeftByCashier then.
        """
        future = self.start(coroutine)
        try:
            if not concurrent.futures.wait([future], PATIENCE_S).done and not self.waits_for_customer:
                complain(f"waiting for the server: {self.client.problem or 'no answer yet'}")
            while on_line is not None and sys.stdin.isatty() and not future.done():
                if select.select([sys.stdin], [], [], KEYBOARD_CHECK_S)[0] and on_line(sys.stdin.readline()):
                    raise LeftByCashier
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def keep_canceling(self, payment_id: UUID) -> None:
        """Go on canceling a payment besides; `report_late` tells the end of it."""
        if payment_id not in self._canceling:
            self._canceling[payment_id] = self.start(self._cancel_until_answered(payment_id))

    async def _cancel_until_answered(self, payment_id: UUID) -> TerminalPaymentResult:
        while True:
            with suppress(RequestUnanswered):
                return await self.client.cancel(payment_id=payment_id)

    def report_recovered(self) -> bool:
        """Say once, on the standard error, what became of the payments that an earlier process lost sight of.

        Returns whether there is anything that the cashier should see.
        """
        if self._recovered is None:
            return False
        if not concurrent.futures.wait([self._recovered], RECOVERY_PATIENCE_S).done:
            complain(f"the outcome of {self.client.left_open} earlier payments is not known yet")
            return False
        recovered, self._recovered = self._recovered.result(), None
        for entry in recovered:
            complain(f"earlier {recovered_line(entry)}")
        return not all(_is_good(entry.outcome) for entry in recovered)

    def report_late(self) -> bool:
        """Say what has become known since: of the above, and of payments whose scans were given up.

        Returns whether there is anything that the cashier should see.
        """
        alarming = False
        if self._recovered is not None and self._recovered.done():
            alarming |= self.report_recovered()
        for payment_id in [payment_id for payment_id, future in self._canceling.items() if future.done()]:
            try:
                line = result_line(self._canceling.pop(payment_id).result())
            except ClientError as error:
                line = f"payment {payment_id}: not canceled, {error}"
            complain(f"earlier {line}")
            alarming = True
        while self.client.unread:
            result = self.wait(self.client.result())
            complain(f"earlier {result_line(result)}")
            alarming |= not _is_good(result)
        return alarming


def _say_status(change: StatusChanged) -> None:
    """In the thread of the session, at once: the cashier need not learn it from a customer's declined payment."""
    complain(printable(change.text))


def _is_good(outcome: object) -> bool:
    """Whether the cashier need not look twice."""
    return isinstance(outcome, TerminalRefundResult) or (
        isinstance(outcome, TerminalPaymentResult) and outcome.status == Status.APPROVED
    )


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
