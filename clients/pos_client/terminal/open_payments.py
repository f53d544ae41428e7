"""The scans, cancels and refunds of one till: journaled, resent until answered, and recovered at the next start.

A scan of an earlier process is never sent again, because the customer may have paid otherwise meanwhile. If the server
does not know the payment, or if it still waits for the PIN, it is canceled. One that was approved stays approved: the
goods may have been handed out.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

from pos_server.core.errors import ErrorCode
from pos_server.core.payments.payment import Status
from pos_server.core.protocol.client_messages import PaymentCancel, PaymentQuery, PaymentScan, RefundCreate
from pos_server.core.protocol.server_messages import (
    Error,
    PaymentPending,
    TerminalPaymentResult,
    TerminalRefundResult,
)

from ..device.requests import OpenRequest, Requests, build_request
from ..errors import (
    ConnectionStopped,
    OutcomeUnknown,
    RefundNotDone,
    RefundRefused,
    RefundUnknown,
    RequestNotDone,
    RequestRefused,
    RequestUnanswered,
    ScanRefused,
)
from .journal import JournaledCancel, JournaledRefund, JournaledScan, JournalEntry
from .open_scan import OnPending, OpenScan
from .recovery import Recovered, RecoveredCancel, RecoveredRefund, RecoveredScan, Recovery

SCAN_TIMEOUT_S = 45.0
"""Default time that a scan, a cancel and a refund wait for their answer."""


@dataclass(eq=False)
class _OpenRefund(OpenRequest[TerminalRefundResult]):
    """A refund without an answer yet."""

    body: RefundCreate = field(repr=False)

    def on_refused(self, error: Error) -> None:
        """End the refund as refused: it was not made."""
        self.fail(RefundRefused(error.code, error.message, error.field, error.retry_after_s))

    def no_answer_error(self, reason: str) -> RefundUnknown | RefundNotDone:
        """Return the exception for an end without an answer."""
        return (RefundUnknown if self.in_doubt else RefundNotDone)(self.body.refund_id, reason)


class OpenPayments:
    """The open scans, cancels and refunds of one till. `server_now_ms` returns the server's time in Unix ms."""

    def __init__(self, requests: Requests, recovery: Recovery, currency: str, server_now_ms: Callable[[], int]) -> None:
        self._requests = requests
        self._recovery = recovery
        self._currency = currency
        self._server_now_ms = server_now_ms
        self._scans: dict[UUID, OpenScan] = {}
        self._refunds: dict[UUID, _OpenRefund] = {}
        # Cancels of scans that an earlier process left open, with their results; None for a cancel without an answer.
        self._cancels: list[tuple[PaymentCancel, asyncio.Future[TerminalPaymentResult | None]]] = []
        # Replayed results of the scans to recover; None before the replay.
        self._replayed: dict[UUID, TerminalPaymentResult | None] = {
            entry.payment_id: None for entry in recovery.left_open if isinstance(entry, JournaledScan)
        }

    async def scan(
        self, scan: PaymentScan, timeout_s: float, *, on_pending: OnPending | None = None, is_repeat: bool
    ) -> TerminalPaymentResult:
        """See TerminalClient.scan. `is_repeat`: an earlier call may have sent the scan."""
        if scan.payment_id in self._scans:
            raise ValueError(f"a scan of payment {scan.payment_id} is already running: wait for its result")
        open_scan = self._scans[scan.payment_id] = OpenScan(
            scan,
            persist=lambda: self._recovery.add(scan),
            on_pending=on_pending,
            was_left_open=self._recovery.was_left_open(scan.payment_id),
        )
        if is_repeat:
            open_scan.in_doubt.add("an earlier call")
        try:
            result = await self._requests.send_and_wait(open_scan, timeout_s)
            self._recovery.settle(result)
            return result
        except ScanRefused:
            open_scan.in_doubt.clear()
            raise
        finally:
            del self._scans[scan.payment_id]
            if not open_scan.in_doubt:
                self._recovery.drop(f"scan {scan.payment_id}")

    async def cancel(self, cancel: PaymentCancel, timeout_s: float) -> TerminalPaymentResult:
        """See TerminalClient.cancel."""
        outcome: asyncio.Future[TerminalPaymentResult | None] = asyncio.get_running_loop().create_future()
        if any(isinstance(entry, JournaledScan) and _covers(cancel, entry) for entry in self._recovery.left_open):
            self._cancels.append((cancel, outcome))
        try:
            result = await self._cancel(cancel, timeout_s)
            outcome.set_result(result)
            return result
        finally:
            if not outcome.done():
                outcome.set_result(None)

    async def _cancel(self, cancel: PaymentCancel, timeout_s: float) -> TerminalPaymentResult:
        entry = await self._recovery.add(cancel)
        for open_scan in list(self._scans.values()):
            if _covers(cancel, open_scan.body):
                # A resend could be approved, and the goods handed out, while the payment is being canceled.
                open_scan.in_doubt.add("a cancel")
                open_scan.fail(OutcomeUnknown(open_scan.body.payment_id, "it is being canceled"))
        try:
            result: TerminalPaymentResult = await self._requests.send_and_wait(OpenRequest(cancel), timeout_s)
        except RequestRefused:
            self._recovery.drop(entry.key)
            raise
        self._recovery.settle_cancel(entry, result)
        return result

    async def refund(self, refund: RefundCreate, timeout_s: float, *, is_repeat: bool) -> TerminalRefundResult:
        """See TerminalClient.refund. `is_repeat`: an earlier call may have sent the refund."""
        if refund.refund_id in self._refunds:
            raise ValueError(f"refund {refund.refund_id} is already running: wait for its result")
        request = self._refunds[refund.refund_id] = _OpenRefund(refund, persist=lambda: self._recovery.add(refund))
        if is_repeat:
            request.in_doubt.add("an earlier call")
        try:
            result = await self._requests.send_and_wait(request, timeout_s)
            self._recovery.settle_refund(result)
            return result
        except RefundRefused:
            request.in_doubt.clear()
            raise
        finally:
            del self._refunds[refund.refund_id]
            if not request.in_doubt:
                self._recovery.drop(f"refund {refund.refund_id}")

    def is_waiting_for(self, message: TerminalPaymentResult | PaymentPending | TerminalRefundResult) -> bool:
        """Return whether a request here waits for this message."""
        if isinstance(message, TerminalRefundResult):
            return message.refund_id in self._refunds
        return message.payment_id in self._scans or message.payment_id in self._replayed

    def on_pending(self, pending: PaymentPending) -> None:
        """Handle the message that a payment waits for its customer."""
        open_scan = self._scans.get(pending.payment_id)
        if open_scan is not None:
            open_scan.wait_for_customer(pending, self._server_now_ms())

    def on_answer(self, message: TerminalPaymentResult | TerminalRefundResult) -> bool:
        """Handle a result of a payment or a refund; returns whether a request here was waiting for it."""
        if isinstance(message, TerminalRefundResult):
            open_refund = self._refunds.get(message.refund_id)
            if open_refund is not None:
                open_refund.on_answer(message)
            return open_refund is not None
        open_scan = self._scans.get(message.payment_id)
        if open_scan is not None and not open_scan.answer.done():
            open_scan.on_answer(message)
            return True
        if message.payment_id in self._replayed:
            self._replayed[message.payment_id] = message
            return True
        # An approval that a cancel is about to undo must not reach the cashier.
        return message.status == Status.APPROVED and self._recovery.is_canceled(message.payment_id, message.reference)

    async def recover(self, online: Callable[[], Awaitable[object]]) -> list[Recovered]:
        """Return the outcomes of the requests that an earlier process left open, oldest first.

        `online` waits for the connection that this needs.
        """
        return await asyncio.gather(*(self._recover(entry, online) for entry in self._recovery.left_open))

    async def _recover(self, entry: JournalEntry, online: Callable[[], Awaitable[object]]) -> Recovered:
        stopped: ConnectionStopped | None = None
        try:
            await online()
        except ConnectionStopped as error:
            stopped = error
        match entry:
            case JournaledScan():
                return await self._recover_scan(entry, stopped)
            case JournaledCancel():
                return await self._recover_cancel(entry, stopped)
            case JournaledRefund():
                return await self._recover_refund(entry, stopped)

    async def _recover_scan(self, entry: JournaledScan, stopped: ConnectionStopped | None) -> RecoveredScan:
        outcome: TerminalPaymentResult | OutcomeUnknown
        try:
            if stopped is not None and self._replayed[entry.payment_id] is None:
                raise stopped
            outcome = await self._find_out(entry)
            replayed = self._replayed[entry.payment_id]
            if replayed is not None and replayed.version > outcome.version:
                outcome = replayed
            self._recovery.settle(outcome)
        except OutcomeUnknown as error:
            outcome = await self._cancel_result(entry) or error
        except (ConnectionStopped, RequestRefused, RequestUnanswered) as error:
            reason = error.reason if isinstance(error, RequestUnanswered) else str(error)
            outcome = OutcomeUnknown(entry.payment_id, reason)
        finally:
            del self._replayed[entry.payment_id]
        return RecoveredScan(
            entry.payment_id, entry.reference, entry.amount_minor, entry.currency, entry.created_at_ms, outcome
        )

    async def _find_out(self, entry: JournaledScan) -> TerminalPaymentResult:
        """Return the payment's final state; without one, cancel it. Raises OutcomeUnknown if others act on it."""
        if (replayed := self._replayed[entry.payment_id]) is not None:
            return replayed
        query = build_request(PaymentQuery, payment_id=entry.payment_id)
        self._stop_if_taken_over(entry)
        try:
            answer: TerminalPaymentResult | PaymentPending = await self._requests.send_and_wait(
                OpenRequest(query), SCAN_TIMEOUT_S
            )
        except RequestRefused as error:
            if error.code != ErrorCode.PAYMENT_UNKNOWN:
                raise
        else:
            if isinstance(answer, TerminalPaymentResult):
                return answer
        self._stop_if_taken_over(entry)
        return await self._cancel(build_request(PaymentCancel, payment_id=entry.payment_id), SCAN_TIMEOUT_S)

    def _stop_if_taken_over(self, entry: JournaledScan) -> None:
        if self._recovery.is_canceled(entry.payment_id, entry.reference):
            raise OutcomeUnknown(entry.payment_id, "it is being canceled")
        if entry.payment_id in self._scans:
            raise OutcomeUnknown(entry.payment_id, "it is being scanned again")

    async def _cancel_result(self, scan: JournaledScan) -> TerminalPaymentResult | None:
        """Return the result of a cancel that covers this scan, None without one."""
        for cancel, outcome in self._cancels:
            if _covers(cancel, scan) and (result := await outcome) is not None:
                return result
        return None

    async def _recover_cancel(self, entry: JournaledCancel, stopped: ConnectionStopped | None) -> RecoveredCancel:
        outcome: TerminalPaymentResult | RequestRefused | RequestUnanswered
        try:
            if stopped is not None:
                raise stopped
            cancel = build_request(PaymentCancel, payment_id=entry.payment_id, reference=entry.reference)
            outcome = await self.cancel(cancel, SCAN_TIMEOUT_S)
        except RequestRefused as refused:
            outcome = await self._final_state(entry) or refused  # it may be too late: then the customer was charged
        except RequestUnanswered as error:
            outcome = error
        except ConnectionStopped as error:
            outcome = RequestUnanswered(str(error))
        return RecoveredCancel(entry.payment_id, entry.reference, entry.created_at_ms, outcome)

    async def _final_state(self, entry: JournaledCancel) -> TerminalPaymentResult | None:
        """Return the final state of the payment that a cancel names; None without one, or without an answer."""
        query = build_request(PaymentQuery, payment_id=entry.payment_id, reference=entry.reference)
        try:
            answer: TerminalPaymentResult | PaymentPending = await self._requests.send_and_wait(
                OpenRequest(query), SCAN_TIMEOUT_S
            )
        except (RequestRefused, RequestUnanswered, ConnectionStopped):
            return None
        return answer if isinstance(answer, TerminalPaymentResult) else None

    async def _recover_refund(self, entry: JournaledRefund, stopped: ConnectionStopped | None) -> RecoveredRefund:
        outcome: TerminalRefundResult | RefundRefused | RefundUnknown
        refund = build_request(
            RefundCreate, refund_id=entry.refund_id, payment_id=entry.payment_id, amount_minor=entry.amount_minor
        )
        try:
            if stopped is not None:
                raise stopped
            outcome = await self.refund(refund, SCAN_TIMEOUT_S, is_repeat=True)
        except (RefundRefused, RefundUnknown) as error:
            outcome = error
        except (ConnectionStopped, RequestNotDone, ValueError) as error:
            outcome = RefundUnknown(entry.refund_id, str(error))
        return RecoveredRefund(
            entry.refund_id, entry.payment_id, entry.amount_minor, self._currency, entry.created_at_ms, outcome
        )


def _covers(cancel: PaymentCancel, scan: JournaledScan | PaymentScan) -> bool:
    return cancel.payment_id == scan.payment_id or cancel.reference == scan.reference
