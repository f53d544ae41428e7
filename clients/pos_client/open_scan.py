"""A scan that waits for its outcome."""

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

from pos_server.core.messages import TerminalPaymentResult

from .errors import OutcomeUnknown, ScanNotDone


@dataclass(eq=False)
class OpenScan:
    """A scan without an answer yet. `in_doubt` holds the ids of the messages that the server may have acted on.

    It is sent again when `again` is set, after `retry_in_s`; `held` says not on this connection.
    """

    payment_id: UUID
    deadline_s: float
    result: asyncio.Future[TerminalPaymentResult] = field(default_factory=lambda: asyncio.Future())
    in_doubt: set[str] = field(default_factory=set)
    again: asyncio.Event = field(default_factory=asyncio.Event)
    retries: int = 0
    retry_in_s: float = 0.0
    held: bool = False
    trouble: str | None = None

    def give_up(self, error: Exception) -> None:
        """End it without a result."""
        if not self.result.done():
            self.result.set_exception(error)

    def unanswered(self, reason: str) -> OutcomeUnknown | ScanNotDone:
        """The error for an end without an answer: whether anything may have happened decides which."""
        return (OutcomeUnknown if self.in_doubt else ScanNotDone)(self.payment_id, reason)
