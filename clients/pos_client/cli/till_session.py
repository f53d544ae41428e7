"""A till for a program that blocks on the keyboard, and its reports about earlier payments."""

import asyncio
import concurrent.futures
import select
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Late:
    """An outcome that the cashier has not seen: as a line of text, and the result or the error itself."""

    line: str
    outcome: object

    @property
    def charged(self) -> TerminalPaymentResult | None:
        """The result, if it says that a customer was charged."""
        is_charged = isinstance(self.outcome, TerminalPaymentResult) and self.outcome.status == Status.APPROVED
        return self.outcome if is_charged else None  # type: ignore[return-value]


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
        self.print_recovered()
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
        """Cancel a payment in the background; `late` returns the result."""
        if payment_id not in self._canceling:
            self._canceling[payment_id] = self.start(self._cancel_until_answered(payment_id))

    async def _cancel_until_answered(self, payment_id: UUID) -> TerminalPaymentResult:
        while True:
            with suppress(RequestUnanswered):
                try:
                    return await self.client.cancel(payment_id=payment_id)
                except RequestRefused:  # it may be too late: then the customer was charged
                    answer = await self.client.query(payment_id=payment_id)
                    if isinstance(answer, TerminalPaymentResult):
                        return answer
                    raise

    @property
    def is_canceling(self) -> bool:
        """True while a cancel in the background has no answer."""
        return any(not future.done() for future in self._canceling.values())

    def recovered(self) -> list[Late]:
        """Return the outcomes of the requests that an earlier process left open, once."""
        for device, count in self.client.foreign.items():
            print_error(
                f"requests of terminal {device} without a known outcome: {count}. They are in this till's journal, but "
                "belong to another activation. Look them up at that server"
            )
        if self._recovered is None:
            return []
        if not concurrent.futures.wait([self._recovered], RECOVERY_WAIT_S).done:
            print_error(f"earlier payments without a known outcome yet: {self.client.left_open}")
            return []
        recovered, self._recovered = self._recovered.result(), None
        return [Late(describe_recovered(entry), entry.outcome) for entry in recovered]

    def late(self) -> list[Late]:
        """Return the outcomes that arrived since: of earlier requests, background cancels, and abandoned scans."""
        late = self.recovered() if self._recovered is not None and self._recovered.done() else []
        for payment_id in [payment_id for payment_id, future in self._canceling.items() if future.done()]:
            try:
                result = self._canceling.pop(payment_id).result()
                late.append(Late(describe_result(result), result))
            except ClientError as error:
                late.append(Late(f"payment {payment_id}: not canceled, {error}", error))
        while self.client.unread:
            unread = self.wait(self.client.result())
            late.append(Late(describe_result(unread), unread))
        return late

    def print_recovered(self) -> None:
        """Print what `recovered` returns to the standard error, for a command that asks no questions."""
        for each in self.recovered():
            print_error(f"earlier {each.line}")


def _print_status_change(change: StatusChanged) -> None:
    """Print a status change at once, so that the cashier learns it before a customer's payment is declined."""
    print_error(printable(change.text))


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
