"""A scan that waits for its outcome: first for the server, then possibly for the customer's PIN."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import BaseModel

from pos_server.core.protocol.client_messages import PaymentQuery, PaymentScan
from pos_server.core.protocol.server_messages import Error, PaymentPending, TerminalPaymentResult

from ..device.requests import OpenRequest
from ..errors import OutcomeUnknown, ScanNotDone, ScanRefused

PENDING_GRACE_S = 10.0
"""Wait for the result after a pending payment expires; the server checks for expired payments about once a second."""
PENDING_S_MAX = 600.0
"""Upper bound of the wait for a pending payment, whatever `expires_at_ms` says."""
OnPending = Callable[[PaymentPending], object]


@dataclass(eq=False)
class OpenScan(OpenRequest[TerminalPaymentResult]):
    """A scan without a result yet.

    A new connection starts with the scan itself. After a silence, and while the payment is pending, only a query is
    sent, which costs the server one read. If the server does not know the payment, the scan is resent.
    """

    body: PaymentScan = field(repr=False)
    on_pending: OnPending | None = field(default=None, repr=False)
    was_left_open: bool = False
    """True if an earlier process may have sent the scan."""
    pending: PaymentPending | None = None
    sends_query: bool = False
    query_ids: set[str] = field(default_factory=set)

    def message(self, message_id: str) -> BaseModel:
        """Return the scan, or a query for its payment."""
        if not self.sends_query:
            return super().message(message_id)
        self.message_ids.add(message_id)
        self.query_ids.add(message_id)
        return PaymentQuery(message_id=message_id, payment_id=self.body.payment_id)

    def on_new_link(self) -> None:
        """Send the scan again: it, or its answer, may have been lost with the old connection."""
        super().on_new_link()
        self.sends_query = False

    def on_silence(self) -> None:
        """Send a query: its answer says whether the scan is late or lost."""
        super().on_silence()
        self.sends_query = True

    def wait_for_customer(self, pending: PaymentPending, server_now_ms: int) -> None:
        """Extend the wait until the pending payment expires, and report it to `on_pending`."""
        if self.answer.done():
            return
        self.resends = 0
        self.last_error = None
        self.free_slot()
        if self.timeout is not None and not self.timeout.expired():
            remaining_s = min((pending.expires_at_ms - server_now_ms) / 1000, PENDING_S_MAX)
            deadline_s = asyncio.get_running_loop().time() + max(remaining_s, 0) + PENDING_GRACE_S
            self.timeout.reschedule(max(deadline_s, self.timeout.when() or deadline_s))
        previous, self.pending = self.pending, pending
        # A wrong PIN also makes a new version, which does not concern the till.
        if self.on_pending is not None and (previous is None or previous.wallet_online != pending.wallet_online):
            asyncio.get_running_loop().call_soon(self.on_pending, pending)

    def on_refused(self, error: Error) -> None:
        """Resend the scan after a refused query (payment unknown); end it after a refused scan."""
        if error.reply_to in self.query_ids:
            self.sends_query = False
            self.wakeup.set()
            return
        refusal = ScanRefused(error.code, error.message, error.field, error.retry_after_s)
        # A send by an earlier process may have been processed, even if this one is refused.
        self.fail(OutcomeUnknown(self.body.payment_id, str(refusal)) if self.was_left_open else refusal)

    def no_answer_error(self, reason: str) -> OutcomeUnknown | ScanNotDone:
        """Return the exception for an end without a result."""
        return (OutcomeUnknown if self.in_doubt else ScanNotDone)(self.body.payment_id, reason)
