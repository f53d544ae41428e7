"""The scans, cancels and refunds of one till: kept in the journal, sent until answered, and recovered at a start."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

from pos_server.core.payments.payment import Status
from pos_server.core.protocol.messages import (
    Error,
    PaymentCancel,
    PaymentPending,
    PaymentScan,
    RefundCreate,
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
from .journal import JournaledCancel, JournaledOpen, JournaledRefund, JournaledScan
from .open_scan import OnPending, OpenScan
from .recovery import Recovered, RecoveredCancel, RecoveredRefund, RecoveredScan, Recovery

SCAN_TIMEOUT_S = 45.0
"""How long a scan, a cancel and a refund wait for their answer, unless told otherwise."""


@dataclass(eq=False)
class _OpenRefund(OpenRequest[TerminalRefundResult]):
    """A refund without an answer yet."""

    body: RefundCreate = field(repr=False)

    def on_refused(self, error: Error) -> None:
        """It was not made."""
        self.fail(RefundRefused(error.code, error.message, error.field, error.retry_after_s))

    def no_answer_error(self, reason: str) -> RefundUnknown | RefundNotDone:
        """The error for an end without an answer."""
        return (RefundUnknown if self.in_doubt else RefundNotDone)(self.body.refund_id, reason)


class OpenPayments:
    """What one till waits for. `server_now_ms` is the server's clock, in Unix ms."""

    def __init__(self, requests: Requests, recovery: Recovery, currency: str, server_now_ms: Callable[[], int]) -> None:
        self._requests = requests
        self._recovery = recovery
        self._currency = currency
        self._server_now_ms = server_now_ms
        self._scans: dict[UUID, OpenScan] = {}
        self._refunds: dict[UUID, _OpenRefund] = {}
        # Answers of cancels, for scans of an earlier process that one of them settled; None where it was not answered.
        self._cancels: list[tuple[PaymentCancel, asyncio.Future[TerminalPaymentResult | None]]] = []
        # The scans that are to be recovered and not sent yet, and what the server replayed of them.
        self._replayed: dict[UUID, TerminalPaymentResult | None] = {
            entry.payment_id: None for entry in recovery.left_open if isinstance(entry, JournaledScan)
        }

    async def scan(
        self, scan: PaymentScan, timeout_s: float, *, on_pending: OnPending | None = None, asked_before: bool
    ) -> TerminalPaymentResult:
        """See TerminalClient.scan. `asked_before`: an earlier call may have sent it."""
        if scan.payment_id in self._scans:
            raise ValueError(f"payment {scan.payment_id} is being scanned already")
        open_scan = self._scans[scan.payment_id] = OpenScan(
            scan,
            persist=lambda: self._recovery.add(scan),
            on_pending=on_pending,
            was_left_open=self._recovery.was_left_open(scan.payment_id),
        )
        if asked_before:
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
        told: asyncio.Future[TerminalPaymentResult | None] = asyncio.get_running_loop().create_future()
        if any(isinstance(left, JournaledScan) and _covers(cancel, left) for left in self._recovery.left_open):
            self._cancels.append((cancel, told))
        try:
            result = await self._cancel(cancel, timeout_s)
            told.set_result(result)
            return result
        finally:
            if not told.done():
                told.set_result(None)

    async def _cancel(self, cancel: PaymentCancel, timeout_s: float) -> TerminalPaymentResult:
        entry = await self._recovery.add(cancel)
        for open_scan in list(self._scans.values()):
            if _covers(cancel, open_scan.body):
                # Sent again, it could be approved and handed out while it is taken back.
                open_scan.in_doubt.add("a cancel")
                open_scan.fail(OutcomeUnknown(open_scan.body.payment_id, "it is being canceled"))
        try:
            result: TerminalPaymentResult = await self._requests.send_and_wait(OpenRequest(cancel), timeout_s)
        except RequestRefused:
            self._recovery.drop(entry.key)
            raise
        self._recovery.settle_cancel(entry, result)
        return result

    async def refund(self, refund: RefundCreate, timeout_s: float, *, asked_before: bool) -> TerminalRefundResult:
        """See TerminalClient.refund. `asked_before`: an earlier call may have sent it."""
        if refund.refund_id in self._refunds:
            raise ValueError(f"refund {refund.refund_id} is being made already")
        request = self._refunds[refund.refund_id] = _OpenRefund(refund, persist=lambda: self._recovery.add(refund))
        if asked_before:
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

    def on_pending(self, pending: PaymentPending) -> None:
        """The server says that a payment waits for its customer."""
        open_scan = self._scans.get(pending.payment_id)
        if open_scan is not None:
            open_scan.wait_for_customer(pending, self._server_now_ms())

    def on_answer(self, message: TerminalPaymentResult | TerminalRefundResult) -> bool:
        """The server says what became of a payment or a refund; returns whether somebody here waits for that."""
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
        # What a cancel is about to change is no news.
        return message.status == Status.APPROVED and self._recovery.is_canceled(message.payment_id, message.reference)

    async def recover(self, online: Callable[[], Awaitable[object]]) -> list[Recovered]:
        """Find out what became of all that an earlier process left without an outcome, oldest first.

        `online` waits for a connection: until there is one, nothing can be found out.
        """
        return await asyncio.gather(*(self._recover(entry, online) for entry in self._recovery.left_open))

    async def _recover(self, entry: JournaledOpen, online: Callable[[], Awaitable[object]]) -> Recovered:
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
        replayed = self._replayed.pop(entry.payment_id)
        outcome: TerminalPaymentResult | OutcomeUnknown
        try:
            if replayed is not None:
                outcome = replayed
                self._recovery.settle(replayed)
            elif stopped is not None:
                raise stopped
            elif self._recovery.is_canceled(entry.payment_id, entry.reference):
                raise OutcomeUnknown(entry.payment_id, "it is being canceled")
            else:
                outcome = await self.scan(build_request(PaymentScan, **entry.body), SCAN_TIMEOUT_S, asked_before=True)
        except OutcomeUnknown as error:
            outcome = await self._canceled(entry) or error
        except (ConnectionStopped, ValueError) as error:  # the latter: the caller asks for it already
            outcome = OutcomeUnknown(entry.payment_id, str(error))
        return RecoveredScan(
            entry.payment_id, entry.reference, entry.amount_minor, entry.currency, entry.created_at_ms, outcome
        )

    async def _canceled(self, scan: JournaledScan) -> TerminalPaymentResult | None:
        """What a cancel has made of it meanwhile."""
        for cancel, told in self._cancels:
            if _covers(cancel, scan) and (result := await told) is not None:
                return result
        return None

    async def _recover_cancel(self, entry: JournaledCancel, stopped: ConnectionStopped | None) -> RecoveredCancel:
        outcome: TerminalPaymentResult | RequestRefused | RequestUnanswered
        try:
            if stopped is not None:
                raise stopped
            cancel = build_request(PaymentCancel, payment_id=entry.payment_id, reference=entry.reference)
            outcome = await self.cancel(cancel, SCAN_TIMEOUT_S)
        except (RequestRefused, RequestUnanswered) as error:
            outcome = error
        except ConnectionStopped as error:
            outcome = RequestUnanswered(str(error))
        return RecoveredCancel(entry.payment_id, entry.reference, entry.created_at_ms, outcome)

    async def _recover_refund(self, entry: JournaledRefund, stopped: ConnectionStopped | None) -> RecoveredRefund:
        outcome: TerminalRefundResult | RefundRefused | RefundUnknown
        refund = build_request(
            RefundCreate, refund_id=entry.refund_id, payment_id=entry.payment_id, amount_minor=entry.amount_minor
        )
        try:
            if stopped is not None:
                raise stopped
            outcome = await self.refund(refund, SCAN_TIMEOUT_S, asked_before=True)
        except (RefundRefused, RefundUnknown) as error:
            outcome = error
        except (ConnectionStopped, RequestNotDone, ValueError) as error:
            outcome = RefundUnknown(entry.refund_id, str(error))
        return RecoveredRefund(
            entry.refund_id, entry.payment_id, entry.amount_minor, self._currency, entry.created_at_ms, outcome
        )


def _covers(cancel: PaymentCancel, scan: JournaledScan | PaymentScan) -> bool:
    return cancel.payment_id == scan.payment_id or cancel.reference == scan.reference
