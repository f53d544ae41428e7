"""A till: it scans codes and hears what became of each payment; it asks, takes back and refunds.

A scan ends in one of three ways, never two: a result (approved or declined), or it is known that nothing happened
(ScanRefused, ScanNotDone), or the outcome is unknown (OutcomeUnknown). Until then the server is asked: when no answer
comes for some seconds with a query, after every reconnect and after every error that says so with the same payment_id.
It answers a repeat with what it stored. An unknown outcome is settled by asking again, or by `cancel`. What was
switched off in the middle is taken up again from the journal.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self
from uuid import UUID

from pydantic import TypeAdapter
from uuid_utils.compat import uuid7

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.protocol.messages import (
    Draining,
    Error,
    Hello,
    PaymentCancel,
    PaymentList,
    PaymentPending,
    PaymentQuery,
    PaymentScan,
    PaymentsRecent,
    RefundCreate,
    ShiftClose,
    ShiftOpen,
    ShiftQuery,
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
from ..device.inbox import Inbox
from ..device.requests import REQUEST_TIMEOUT_S, OpenRequest, Requests, build_request
from ..device.resume import Resume
from .open_payments import SCAN_TIMEOUT_S, OpenPayments
from .open_scan import OnPending, OpenScan
from .recovery import Recovered, Recovery

RESULTS_MAX = 100
"""Results that wait for `result()`; the oldest is dropped for the newest."""
CODE_CHARS_MAX = 64
"""Scanners read longer symbols than payment codes; the server would close the connection for a huge one."""

Result = TerminalPaymentResult | TerminalRefundResult
_Said = (
    TerminalPaymentResult | PaymentPending | PaymentList | TerminalRefundResult | ShiftReport | StatusChanged | Error
)
_messages: TypeAdapter[Hello | TerminalReady | _Said | Draining] = TypeAdapter(TerminalMessage)


class TerminalClient(DeviceClient[TerminalReady, _Said]):
    """One till's session. `async with TerminalClient(credentials) as till: result = await till.scan(…)`.

    With a `journal` (a file of its own), scans, cancels and refunds outlive this process: those that an earlier one
    left without an outcome are sent again as soon as there is a connection, and `recovered` tells what became of them.
    The server never charges or refunds twice, but what had not reached it before is decided now. The file holds the
    codes of scans that are not settled: keep it private. `language` (RFC 5646, such as `zh-CN`) is that of the texts
    for the cashier, where the server has it. `on_status` is called in the event loop when the terminal is disabled or
    enabled. Raises CredentialsError for a wallet's credentials.
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
        resume = Resume(self._recovery.since_ms, self._recovery.heard)
        super().__init__(credentials, DeviceKind.TERMINAL, _messages, backoff=backoff, resume=resume, language=language)
        self._requests = Requests(self._online, self._backoff, lambda: self.problem)
        self._payments = OpenPayments(
            self._requests, self._recovery, credentials.currency, lambda: self._now_ms() + self.clock_offset_ms
        )
        self._on_status = on_status
        self._results: Inbox[Result] = Inbox(RESULTS_MAX)
        self._recovering: asyncio.Task[list[Recovered]]

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._recovering = asyncio.create_task(self._payments.recover(self._online), name="pos-recovery")
        return self

    async def __aexit__(self, *exception: object) -> None:
        await super().__aexit__(*exception)
        await asyncio.wait([self._recovering])  # the stop has ended its requests
        self._recovery.resume_from(self._resume.since_ms)
        await self._recovery.close()

    @property
    def left_open(self) -> int:
        """How many scans, cancels and refunds an earlier process left without an outcome: see `recovered`."""
        return len(self._recovery.left_open)

    @property
    def unread(self) -> int:
        """How many results wait for `result`."""
        return len(self._results)

    async def recovered(self) -> list[Recovered]:
        """What became of what an earlier process left without an outcome, oldest first; once all of it is known.

        A payment that was to be canceled is canceled, and not scanned again. Waits as long as the server is away, then
        at most SCAN_TIMEOUT_S for its answers, or as long as a customer may take. Every call returns the same.
        """
        return await asyncio.shield(self._recovering)

    async def result(self) -> Result:
        """Wait for a result that nobody waits for: of a scan that was given up, of a later change, of a refund.

        Each version of each payment comes once, but what `scan` and the other calls return does not come here again.
        After a restart without a journal, what the server replays comes here. Raises ConnectionStopped when no more
        will.
        """
        result = await self._results.get()
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
        """Ask for `amount_minor` (minor units of the terminal's currency) with a scanned code, and wait for the result.

        `status` of the result is `approved`, or what else became of the payment. `reference` is the merchant's order
        number, 1 to 64 printable characters: an order is never charged twice. `typed` says that the code was typed by
        hand, which always needs the customer's PIN. `purpose` says what the money is for: with `top_up` the customer
        hands over cash, with `withdrawal` the till pays cash out, once it is approved. While the customer is asked for
        it, `on_pending` is called in the event loop, again when the wallet comes online or goes; the result is then
        waited for until the customer's time is over, whatever `timeout_s` says. To ask again after OutcomeUnknown, pass
        its `payment_id` and the same code, amount, reference, `typed` and `purpose`; to take the payment back, use
        `cancel`, which ends this call with OutcomeUnknown. At most 16 requests are unanswered at once; more wait.
        Cancelling the task leaves the outcome unknown; what comes later comes to `result`. Raises ValueError for input
        that no server would take and for a payment that is being canceled, ScanRefused, ScanNotDone, OutcomeUnknown,
        ConnectionStopped.
        """
        if len(code) > CODE_CHARS_MAX or not code.isascii():
            raise ValueError("that is not a payment code")
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
        return await self._payments.scan(scan, timeout_s, on_pending=on_pending, asked_before=payment_id is not None)

    async def cancel(
        self, *, payment_id: UUID | None = None, reference: str | None = None, timeout_s: float = SCAN_TIMEOUT_S
    ) -> TerminalPaymentResult:
        """Take a payment back, by its id or by its order number, whether or not it ever reached the server.

        Returns the payment as it is then: `canceled` (money that had moved went back; `amount_minor` is None when the
        server had never seen it, and never will), or `declined` or `expired`, as it was before. It is sent until it is
        answered. The wish is kept in the journal before that: without an answer, call it again, or the next start goes
        on. Until it is answered, `scan` refuses the same payment and the same order. Raises ValueError, RequestRefused
        (such as `cancel_too_late`), RequestUnanswered, ConnectionStopped.
        """
        cancel = build_request(PaymentCancel, payment_id=payment_id, reference=reference)
        return await self._payments.cancel(cancel, timeout_s)

    async def query(
        self, *, payment_id: UUID | None = None, reference: str | None = None, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> TerminalPaymentResult | PaymentPending:
        """What became of a payment of this merchant, by its id or by its order number.

        Of an order it is the payment that occupies it, or else the one that failed last. Raises ValueError,
        RequestRefused (`payment_unknown`), RequestUnanswered, ConnectionStopped.
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
        """The last payments of this till, at most `limit` (1 to 50), latest change first.

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
        """Give `amount_minor` (minor units) of an approved payment back; any till of the merchant may.

        To ask again after RefundUnknown, pass its `refund_id`: a refund is never made twice. Raises ValueError,
        RefundRefused (such as `refund_exceeds_remaining`), RefundUnknown, RefundNotDone, ConnectionStopped.
        """
        is_repeat = refund_id is not None
        refund = build_request(
            RefundCreate, refund_id=refund_id or uuid7(), payment_id=payment_id, amount_minor=amount_minor
        )
        return await self._payments.refund(refund, timeout_s, asked_before=is_repeat)

    async def open_shift(
        self,
        operator: str,
        opening_cash_minor: int = 0,
        *,
        shift_id: UUID | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> ShiftReport:
        """Begin a shift at this till; returns its X-report.

        To ask again after RequestUnanswered, pass the same `shift_id`, operator and cash: it is opened once. Raises
        ValueError, RequestRefused (`shift_already_open`), RequestUnanswered, ConnectionStopped.
        """
        wish = build_request(
            ShiftOpen, shift_id=shift_id or uuid7(), operator=operator, opening_cash_minor=opening_cash_minor
        )
        return await self._requests.send_and_wait(OpenRequest(wish), timeout_s)

    async def close_shift(
        self, shift_id: UUID, counted_cash_minor: int | None = None, *, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> ShiftReport:
        """End a shift of this till; returns its Z-report. The same again returns the same.

        While a payment of the shift waits for its PIN, it is tried again until `timeout_s` is over. Raises ValueError,
        RequestRefused (`shift_unknown`, or `id_reused` when it was closed with another count), RequestUnanswered,
        ConnectionStopped.
        """
        wish = build_request(ShiftClose, shift_id=shift_id, counted_cash_minor=counted_cash_minor)
        return await self._requests.send_and_wait(OpenRequest(wish), timeout_s)

    async def shift_report(self, shift_id: UUID | None = None, *, timeout_s: float = REQUEST_TIMEOUT_S) -> ShiftReport:
        """The report of a shift of this till: of the open one (X), or of that with this id (Z once it is closed).

        Raises RequestRefused (`shift_unknown`), RequestUnanswered, ConnectionStopped.
        """
        return await self._requests.send_and_wait(OpenRequest(build_request(ShiftQuery, shift_id=shift_id)), timeout_s)

    def _on_message(self, message: _Said) -> None:
        if isinstance(message, Error):
            self._requests.on_error(message)
            return
        if isinstance(message, StatusChanged):
            if self._on_status is not None:
                self._on_status(message)
            return
        asked = self._requests.find(message.reply_to)
        # A scan's answer is told by its payment: it may come to a query, to the scan, or by itself.
        if asked is not None and not isinstance(asked, OpenScan):
            asked.on_answer(message)
        if isinstance(message, PaymentList | ShiftReport):
            return
        is_new = self._resume.on_result(message.payment_id, message.version, message.decided_at_ms)
        self._recovery.resume_from(self._resume.since_ms)
        if isinstance(message, PaymentPending):
            self._payments.on_pending(message)
            return
        is_waited_for = self._payments.on_answer(message)
        if is_new and asked is None and not is_waited_for:
            self._results.put(message)

    def _on_online(self, ready: TerminalReady) -> None:
        self._recovery.resume_from(self._resume.since_ms)

    def _on_offline(self) -> None:
        self._requests.on_offline(self.stopped)
        if self.stopped is not None:
            self._results.put(self.stopped)
