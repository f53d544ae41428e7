"""A till for a program that blocks on the keyboard, and its reports about earlier payments."""

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
from .console import print_error, printable

WAIT_MESSAGE_AFTER_S = 2.0
KEYBOARD_CHECK_S = 0.2
RECOVERY_WAIT_S = 10.0
"""Wait at a start for the outcomes of earlier payments. Later ones are printed once they are known."""

T = TypeVar("T")


class WaitAbandoned(Exception):
    """The cashier stopped waiting for the result."""


class TillSession:
    """A TerminalClient for a program that blocks on the keyboard. The session runs in a thread of its own."""

    def __init__(self, credentials: Credentials, journal: Path | None, *, language: str = "en") -> None:
        self.client = TerminalClient(credentials, journal=journal, language=language, on_status=_print_status_change)
        self.waits_for_customer = False
        """True while the payment is pending: the server has answered, and the customer has not. Set by the caller."""
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
        """Run a coroutine in the session's thread and return its future."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def wait(self, coroutine: Coroutine[Any, Any, T], on_line: Callable[[str], bool] | None = None) -> T:
        """Run a coroutine and return its result; prints a message if that takes long. Ctrl-C cancels the coroutine.

        If the input is a terminal, lines typed meanwhile go to `on_line`. When it returns True, the coroutine is
        canceled and WaitAbandoned is raised.
        """
        future = self.start(coroutine)
        try:
            if not concurrent.futures.wait([future], WAIT_MESSAGE_AFTER_S).done and not self.waits_for_customer:
                print_error(f"waiting for the server: {self.client.problem or 'no answer yet'}")
            while on_line is not None and sys.stdin.isatty() and not future.done():
                if select.select([sys.stdin], [], [], KEYBOARD_CHECK_S)[0] and on_line(sys.stdin.readline()):
                    raise WaitAbandoned
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def keep_canceling(self, payment_id: UUID) -> None:
        """Cancel a payment in the background; `report_late` prints the result."""
        if payment_id not in self._canceling:
            self._canceling[payment_id] = self.start(self._cancel_until_answered(payment_id))

    async def _cancel_until_answered(self, payment_id: UUID) -> TerminalPaymentResult:
        while True:
            with suppress(RequestUnanswered):
                return await self.client.cancel(payment_id=payment_id)

    def report_recovered(self) -> bool:
        """Print the outcomes of the requests that an earlier process left open, once, to the standard error.

        Returns whether any of them needs the cashier's attention.
        """
        if self._recovered is None:
            return False
        if not concurrent.futures.wait([self._recovered], RECOVERY_WAIT_S).done:
            print_error(f"earlier payments without a known outcome yet: {self.client.left_open}")
            return False
        recovered, self._recovered = self._recovered.result(), None
        for entry in recovered:
            print_error(f"earlier {describe_recovered(entry)}")
        return not all(_is_good(entry.outcome) for entry in recovered)

    def report_late(self) -> bool:
        """Print the outcomes that arrived since: of earlier requests, background cancels, and abandoned scans.

        Returns whether any of them needs the cashier's attention.
        """
        needs_attention = False
        if self._recovered is not None and self._recovered.done():
            needs_attention |= self.report_recovered()
        for payment_id in [payment_id for payment_id, future in self._canceling.items() if future.done()]:
            try:
                line = describe_result(self._canceling.pop(payment_id).result())
            except ClientError as error:
                line = f"payment {payment_id}: not canceled, {error}"
            print_error(f"earlier {line}")
            needs_attention = True
        while self.client.unread:
            result = self.wait(self.client.result())
            print_error(f"earlier {describe_result(result)}")
            needs_attention |= not _is_good(result)
        return needs_attention


def _print_status_change(change: StatusChanged) -> None:
    """Print a status change at once, so that the cashier learns it before a customer's payment is declined."""
    print_error(printable(change.text))


def _is_good(outcome: object) -> bool:
    """Return whether an outcome needs no attention."""
    return isinstance(outcome, TerminalRefundResult) or (
        isinstance(outcome, TerminalPaymentResult) and outcome.status == Status.APPROVED
    )


def describe_recovered(recovered: Recovered) -> str:
    """Describe a recovered request in one line, such as `order 17 of 12.50 EUR: approved`."""
    outcome = recovered.outcome
    match recovered:
        case RecoveredScan():
            subject = _order(recovered.reference, recovered.amount_minor, recovered.currency)
        case RecoveredCancel(reference=None):
            subject = f"cancel of payment {recovered.payment_id}"
        case RecoveredCancel():
            subject = f"cancel of order {recovered.reference}"
        case RecoveredRefund():
            amount = format_amount(recovered.amount_minor, recovered.currency)
            subject = f"refund of {amount} of payment {recovered.payment_id}"
    match outcome:
        case TerminalPaymentResult():
            return f"{subject}: {_status(outcome)}"
        case TerminalRefundResult():
            return f"{subject}: {outcome.text}"
        case RequestUnanswered():
            return f"{subject}: still unknown, {outcome.reason}"
        case RequestRefused():
            return f"{subject}: refused, {outcome}"


def describe_result(result: TerminalPaymentResult | TerminalRefundResult) -> str:
    """Describe a payment or a refund in one line, such as `order 17 of 12.50 EUR: approved`."""
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
