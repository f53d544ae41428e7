"""TerminalClient: scans codes, reports payment results, queries, cancels and refunds payments, and runs shifts.

A scan ends in exactly one of three ways:

- a result: approved or declined;
- proof that nothing happened: ScanRefused or ScanNotDone;
- an unknown outcome: OutcomeUnknown.

Until then the client keeps asking the server. After some seconds of silence it sends a query; after a reconnect or a
retryable error it resends the scan with the same payment_id. The server answers a repeat with the stored result. To
resolve an unknown outcome, repeat the scan or use `cancel`. After a restart, cancels and refunds are resumed from the
journal. A scan is not: its outcome is queried, and a payment that is not decided is canceled.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, Self
from uuid import UUID

from pydantic import TypeAdapter
from uuid_utils.compat import uuid7

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.protocol.client_messages import (
    PaymentCancel,
    PaymentQuery,
    PaymentScan,
    PaymentsRecent,
    RefundCreate,
    ShiftClose,
    ShiftOpen,
    ShiftQuery,
)
from pos_server.core.protocol.server_messages import (
    Draining,
    Error,
    Hello,
    PaymentList,
    PaymentPending,
    Replayed,
    ShiftReport,
    StatusChanged,
    TerminalMessage,
    TerminalPaymentResult,
    TerminalReady,
    TerminalRefundResult,
)

from ..device.backoff import Backoff
from ..device.connection import DeviceClient
from ..device.credentials import Credentials
from ..device.requests import REQUEST_TIMEOUT_S, OpenRequest, build_request
from ..device.resume import Resume
from .open_payments import SCAN_TIMEOUT_S, OpenPayments
from .open_scan import OnPending, OpenScan
from .recovery import Recovered, Recovery

CODE_CHARS_MAX = 64
"""Upper bound of a scanned text. Scanners read longer symbols, and the server closes the connection for a huge one."""

Result = TerminalPaymentResult | TerminalRefundResult
_Message = (
    TerminalPaymentResult | PaymentPending | PaymentList | TerminalRefundResult | ShiftReport | StatusChanged | Error
)
_messages: TypeAdapter[Hello | TerminalReady | _Message | Replayed | Draining] = TypeAdapter(TerminalMessage)


class TerminalClient(DeviceClient[TerminalReady, _Message, Result]):
    """One till's session. `async with TerminalClient(credentials) as till: result = await till.scan(…)`.

    `journal` is a file of this till's own. With it, scans, cancels and refunds survive a restart: those that an earlier
    process left without an outcome are resolved once there is a connection, and `recovered` returns their outcomes.
    Cancels and refunds are resent. Nobody is charged for a scan that had not reached the server: it is canceled. The
    file contains the codes of unsettled scans: keep it private.

    `language` (RFC 5646, such as `zh-CN`) selects the texts for the cashier, if the server supports it. `on_status` is
    called in the event loop when the terminal is disabled or enabled. Raises CredentialsError for a wallet's
    credentials.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        journal: Path | None = None,
        language: str = "en",
        on_status: Callable[[StatusChanged], None] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._recovery = Recovery(journal, credentials)
        resume = Resume(self._recovery.since_ms, self._recovery.versions)
        super().__init__(credentials, DeviceKind.TERMINAL, _messages, backoff=backoff, resume=resume, language=language)
        self._payments = OpenPayments(
            self._requests, self._recovery, credentials.currency, lambda: self._now_ms() + self.clock_offset_ms
        )
        self._on_status = on_status
        self._recovering: asyncio.Task[list[Recovered]]

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._recovering = asyncio.create_task(self._payments.recover(self._online), name="pos-recovery")
        return self

    async def __aexit__(self, *exception: object) -> None:
        await super().__aexit__(*exception)
        await asyncio.wait([self._recovering])  # the stop above ended its requests
        if not any(exception):
            self._unread.acknowledge()
        self._save_position()
        await self._recovery.close()

    @property
    def left_open(self) -> int:
        """Number of scans, cancels and refunds that an earlier process left without an outcome. See `recovered`."""
        return len(self._recovery.left_open)

    @property
    def foreign(self) -> Mapping[str, int]:
        """Numbers of open requests in the journal that belong to other activations, such as `7 at https://…`: 2."""
        return self._recovery.foreign

    @property
    def unread(self) -> int:
        """Number of results that wait for `result`."""
        return len(self._unread)

    async def recovered(self) -> list[Recovered]:
        """Wait for the outcomes of the requests that an earlier process left open, and return them, oldest first.

        A payment that was approved stays approved; one that the server does not know, or that waits for its PIN, is
        canceled. Waits as long as the server is away, then
        at most SCAN_TIMEOUT_S for its answers, or as long as a customer may take. Every call returns the same list.
        """
        return await asyncio.shield(self._recovering)

    async def result(self) -> Result:
        """Wait for an unsolicited result: of an abandoned scan, a later change of a payment, or a refund.

        Each version of each payment arrives once. Results that `scan` and the other calls return do not arrive here.
        With a journal, results that were not read before a restart arrive again: calling this acknowledges the
        previous result. Without one, replayed results arrive here. Up to UNREAD_MAX results are kept; later ones stay
        at the server until these are read. Raises ConnectionStopped after the last one.
        """
        self._unread.acknowledge()
        self._save_position()
        result = await self._unread.get()
        if isinstance(result, TerminalRefundResult):
            self._recovery.settle_refund(result)
        else:
            self._recovery.settle(result)
        return result

    async def scan(
        self,
        *,
        code: str,
        amount_minor: int,
        reference: str,
        payment_id: UUID | None = None,
        typed: bool = False,
        purpose: Literal["sale", "top_up", "withdrawal"] = "sale",
        timeout_s: float = SCAN_TIMEOUT_S,
        on_pending: OnPending | None = None,
    ) -> TerminalPaymentResult:
        """Charge `amount_minor` (minor units of the terminal's currency) to a scanned code, and wait for the result.

        - `status` of the result is `approved` or another final status of the payment.
        - `reference` is the merchant's order number, 1 to 64 printable characters. An order is never charged twice.
        - `typed`: the code was typed by hand, so the customer's PIN is always required.
        - `purpose`: with `top_up` the customer hands over cash; with `withdrawal` the till pays cash out, once it is
          approved.
        - `on_pending` is called in the event loop while the payment waits for the customer's PIN, and again when the
          wallet goes online or offline. The wait for the result then lasts until the payment expires, regardless of
          `timeout_s`.

        At most 16 requests are in flight; more wait. Cancelling the task leaves the outcome unknown; a later result
        arrives at `result`. After OutcomeUnknown, repeat the scan with its `payment_id` and the same code, amount,
        reference, `typed` and `purpose`. Or use `cancel`, which ends a running scan with OutcomeUnknown.

        Raises ScanRefused, ScanNotDone, OutcomeUnknown, ConnectionStopped; ValueError for invalid input and for a
        payment that is being canceled.
        """
        if len(code) > CODE_CHARS_MAX or not code.isascii():
            raise ValueError("this is not a payment code: scan the code again")
        scan = build_request(
            PaymentScan,
            payment_id=payment_id or uuid7(),
            reference=reference,
            amount_minor=amount_minor,
            currency=self.credentials.currency,
            code=code,
            entry="typed" if typed else "scanned",
            purpose=purpose,
        )
        self._recovery.check_repeat(scan)
        return await self._payments.scan(scan, timeout_s, on_pending=on_pending, is_repeat=payment_id is not None)

    async def cancel(
        self, *, payment_id: UUID | None = None, reference: str | None = None, timeout_s: float = SCAN_TIMEOUT_S
    ) -> TerminalPaymentResult:
        """Cancel a payment by its id or its order number, whether or not it ever reached the server.

        Returns the payment's state after the cancel. `canceled`: money that had moved went back; `amount_minor` is None
        if the server never received the scan, and it will reject it from now on. `declined` or `expired`: the payment
        had failed before.

        The cancel is journaled first and then resent until it is answered. Without an answer, call this again, or the
        next start resumes it. Until then, `scan` rejects the same payment and the same order. Raises ValueError,
        RequestRefused (such as `cancel_too_late`), RequestUnanswered, ConnectionStopped.
        """
        cancel = build_request(PaymentCancel, payment_id=payment_id, reference=reference)
        return await self._payments.cancel(cancel, timeout_s)

    async def query(
        self, *, payment_id: UUID | None = None, reference: str | None = None, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> TerminalPaymentResult | PaymentPending:
        """Return the state of a payment of this merchant, by its id or its order number.

        For an order number it is the payment that occupies the order, or else the one that failed last. Raises
        ValueError, RequestRefused (`payment_unknown`), RequestUnanswered, ConnectionStopped.
        """
        query = build_request(PaymentQuery, payment_id=payment_id, reference=reference)
        answer: TerminalPaymentResult | PaymentPending = await self._requests.send_and_wait(
            OpenRequest(query), timeout_s
        )
        if isinstance(answer, TerminalPaymentResult):
            self._recovery.settle(answer)
        return answer

    async def recent(
        self, limit: int = 10, *, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> tuple[TerminalPaymentResult | PaymentPending, ...]:
        """Return the last payments of this till, at most `limit` (1 to 50), latest change first.

        Raises ValueError, RequestUnanswered, ConnectionStopped.
        """
        recent = build_request(PaymentsRecent, limit=limit)
        answer: PaymentList = await self._requests.send_and_wait(OpenRequest(recent), timeout_s)
        return answer.payments

    async def refund(
        self,
        payment_id: UUID,
        amount_minor: int,
        refund_id: UUID | None = None,
        *,
        timeout_s: float = SCAN_TIMEOUT_S,
    ) -> TerminalRefundResult:
        """Refund `amount_minor` (minor units) of an approved payment. Any till of the merchant may do so.

        After RefundUnknown, repeat the call with its `refund_id`: a refund is never made twice. Raises ValueError,
        RefundRefused (such as `refund_exceeds_remaining`), RefundUnknown, RefundNotDone, ConnectionStopped.
        """
        is_repeat = refund_id is not None
        refund = build_request(
            RefundCreate, refund_id=refund_id or uuid7(), payment_id=payment_id, amount_minor=amount_minor
        )
        return await self._payments.refund(refund, timeout_s, is_repeat=is_repeat)

    async def open_shift(
        self,
        operator: str,
        opening_cash_minor: int = 0,
        *,
        shift_id: UUID | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> ShiftReport:
        """Open a shift at this till and return its X-report. `opening_cash_minor` is the cash in the drawer.

        After RequestUnanswered, repeat the call with the same `shift_id`, operator and cash: the shift is opened once.
        Raises ValueError, RequestRefused (`shift_already_open`), RequestUnanswered, ConnectionStopped.
        """
        opening = build_request(
            ShiftOpen, shift_id=shift_id or uuid7(), operator=operator, opening_cash_minor=opening_cash_minor
        )
        return await self._requests.send_and_wait(OpenRequest(opening), timeout_s)

    async def close_shift(
        self, shift_id: UUID, counted_cash_minor: int | None = None, *, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> ShiftReport:
        """Close a shift of this till and return its Z-report. A repeat returns the same report.

        While a payment of the shift waits for its PIN, the close is retried until `timeout_s` is over. Raises
        ValueError, RequestRefused (`shift_unknown`, or `id_reused` if it was closed with another count),
        RequestUnanswered, ConnectionStopped.
        """
        closing = build_request(ShiftClose, shift_id=shift_id, counted_cash_minor=counted_cash_minor)
        return await self._requests.send_and_wait(OpenRequest(closing), timeout_s)

    async def shift_report(self, shift_id: UUID | None = None, *, timeout_s: float = REQUEST_TIMEOUT_S) -> ShiftReport:
        """Return the report of a shift of this till: the open one, or the one with this id.

        It is an X-report while the shift is open and a Z-report once it is closed.

        Raises RequestRefused (`shift_unknown`), RequestUnanswered, ConnectionStopped.
        """
        return await self._requests.send_and_wait(OpenRequest(build_request(ShiftQuery, shift_id=shift_id)), timeout_s)

    def _on_message(self, message: _Message) -> None:
        if isinstance(message, Error):
            self._requests.on_error(message)
            return
        if isinstance(message, StatusChanged):
            if self._on_status is not None:
                self._on_status(message)
            return
        request = self._requests.find(message.reply_to)
        # A scan's answer is matched by its payment, since it may reply to the scan, to a query, or to nothing.
        if request is not None and not isinstance(request, OpenScan):
            request.on_answer(message)
        if isinstance(message, PaymentList | ShiftReport):
            return
        is_expected = request is not None or self._payments.is_waiting_for(message)
        if not is_expected and not self._has_room():
            return
        is_new = self._resume.on_result(message.payment_id, message.version, message.decided_at_ms)
        if isinstance(message, PaymentPending):
            self._payments.on_pending(message)
        else:
            is_waited_for = self._payments.on_answer(message)
            if is_new and request is None and not is_waited_for:
                self._unread.put(message)
        self._save_position()

    def _save_position(self) -> None:
        """Journal the time to resume from, unless there are unread results: those must arrive again after a restart."""
        if self._unread.is_done:
            self._recovery.resume_from(self._resume.since_ms)

    def _on_online(self, ready: TerminalReady) -> None:
        self._save_position()

    def _on_replayed(self, message: Replayed) -> None:
        super()._on_replayed(message)
        self._save_position()

    def _on_offline(self) -> None:
        self._requests.on_offline(self.stopped)
        if self.stopped is not None:
            self._unread.close(self.stopped)
