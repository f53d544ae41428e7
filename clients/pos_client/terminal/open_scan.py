"""A scan that waits for its outcome: first for the server, then perhaps for the customer."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import BaseModel

from pos_server.core.protocol.messages import Error, PaymentPending, PaymentQuery, PaymentScan, TerminalPaymentResult

from ..device.requests import OpenRequest
from ..errors import OutcomeUnknown, ScanNotDone, ScanRefused

PENDING_GRACE_S = 10.0
"""How long after the customer's time is over the result is waited for: the server looks every second or so."""
PENDING_S_MAX = 600.0
"""No server's `expires_at_ms` makes a till wait longer."""
OnPending = Callable[[PaymentPending], object]


@dataclass(eq=False)
class OpenScan(OpenRequest[TerminalPaymentResult]):
    """A scan without a result yet.

    On a new connection the scan is sent. When nothing is heard, or while the customer is asked, the server is only
    queried: that costs it a read. When it does not know the payment, the scan is sent again.
    """

    body: PaymentScan = field(repr=False)
    on_pending: OnPending | None = field(default=None, repr=False)
    was_left_open: bool = False
    """Whether an earlier process may have sent it."""
    pending: PaymentPending | None = None
    queries: bool = False
    query_ids: set[str] = field(default_factory=set)

    def message(self, message_id: str) -> BaseModel:
        """The scan, or a query for it."""
        if not self.queries:
            return super().message(message_id)
        self.message_ids.add(message_id)
        self.query_ids.add(message_id)
        return PaymentQuery(message_id=message_id, payment_id=self.body.payment_id)

    def on_new_link(self) -> None:
        """The scan may be lost with the old connection, and its answer too."""
        super().on_new_link()
        self.queries = False

    def on_silence(self) -> None:
        """The scan is there, and late; or it is lost, and the answer will say so."""
        super().on_silence()
        self.queries = True

    def wait_for_customer(self, pending: PaymentPending, server_now_ms: int) -> None:
        """The payment is pending: wait until its time is over."""
        if self.answer.done():
            return
        self.resends = 0
        self.last_error = None
        self.free_slot()
        if self.timeout is not None and not self.timeout.expired():
            left_s = min((pending.expires_at_ms - server_now_ms) / 1000, PENDING_S_MAX)
            deadline_s = asyncio.get_running_loop().time() + max(left_s, 0) + PENDING_GRACE_S
            self.timeout.reschedule(max(deadline_s, self.timeout.when() or deadline_s))
        before, self.pending = self.pending, pending
        # A wrong PIN makes a new version too, and is nothing to the till.
        if self.on_pending is not None and (before is None or before.wallet_online != pending.wallet_online):
            asyncio.get_running_loop().call_soon(self.on_pending, pending)

    def on_refused(self, error: Error) -> None:
        """Of a query: the payment is not there. Of the scan: it is not done."""
        if error.reply_to in self.query_ids:
            self.queries = False
            self.wakeup.set()
            return
        refused = ScanRefused(error.code, error.message, error.field, error.retry_after_s)
        # What an earlier process sent may have been acted on, whatever is said of it now.
        self.fail(OutcomeUnknown(self.body.payment_id, str(refused)) if self.was_left_open else refused)

    def no_answer_error(self, reason: str) -> OutcomeUnknown | ScanNotDone:
        """The error for an end without a result."""
        return (OutcomeUnknown if self.in_doubt else ScanNotDone)(self.body.payment_id, reason)
