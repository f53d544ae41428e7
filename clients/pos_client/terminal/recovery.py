"""What a till carries over a restart: what it lost sight of, and a journal that is written in the background."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from pos_server.core.payments.payment import Status
from pos_server.core.protocol.client_messages import PaymentCancel, PaymentScan, RefundCreate
from pos_server.core.protocol.server_messages import TerminalPaymentResult, TerminalRefundResult

from ..device.connection import local_time_ms
from ..device.credentials import Credentials
from ..errors import OutcomeUnknown, RefundRefused, RefundUnknown, RequestRefused, RequestUnanswered
from .journal import Journal, JournaledCancel, JournaledOpen, JournaledRefund, JournaledScan


@dataclass(frozen=True, slots=True)
class RecoveredScan:
    """A scan of an earlier process, and what became of it. `amount_minor` is in minor units of `currency`.

    When it is still unknown, the journal keeps the scan, and the next start tries again.
    """

    payment_id: UUID
    reference: str
    amount_minor: int
    currency: str
    created_at_ms: int
    outcome: TerminalPaymentResult | OutcomeUnknown


@dataclass(frozen=True, slots=True)
class RecoveredCancel:
    """A payment that an earlier process wanted to cancel, by its id or its reference, and what became of it.

    When that is still unknown, the journal keeps the wish, and the next start tries again.
    """

    payment_id: UUID | None
    reference: str | None
    created_at_ms: int
    outcome: TerminalPaymentResult | RequestRefused | RequestUnanswered


@dataclass(frozen=True, slots=True)
class RecoveredRefund:
    """A refund of an earlier process, and what became of it. `amount_minor` is in minor units of `currency`.

    When it is still unknown, the journal keeps the refund, and the next start tries again.
    """

    refund_id: UUID
    payment_id: UUID
    amount_minor: int
    currency: str
    created_at_ms: int
    outcome: TerminalRefundResult | RefundRefused | RefundUnknown


Recovered = RecoveredScan | RecoveredCancel | RecoveredRefund


class Recovery:
    """The journal of one TerminalClient, or its stand-in where there is none.

    What is to be sent is journaled before, and waited for. It is settled in the background, several at a time: were
    that lost, it would be sent again for nothing. The memory of it here is what repeats are compared with.
    """

    def __init__(self, path: Path | None, credentials: Credentials) -> None:
        self._device = f"{credentials.number} at {credentials.server}"
        self._journal = None if path is None else Journal(path, self._device)
        self._open: dict[str, JournaledOpen] = {}
        self.heard: Mapping[UUID, int] = {}
        self.since_ms: int | None = None
        if self._journal is not None:
            self._journal.load()
            self._open |= self._journal.open
            self.heard = self._journal.heard
            self.since_ms = self._journal.since_ms
        self._found = frozenset(self._open)
        self.left_open = tuple(entry for entry in self._open.values() if not self._is_canceled_scan(entry))
        """What earlier processes left without an outcome, oldest first. A cancel stands for its scans too."""
        self._adding: set[asyncio.Task[None]] = set()
        self._heard_since: dict[UUID, int] = {}
        self._done: set[str] = set()
        self._being_taken_out: set[str] = set()
        self._written_since_ms = self.since_ms
        self._writer: asyncio.Task[None] | None = None

    def was_left_open(self, payment_id: UUID) -> bool:
        """Whether an earlier process may have sent a scan with this id."""
        return f"scan {payment_id}" in self._found

    def is_canceled(self, payment_id: UUID, reference: str | None) -> bool:
        """Whether this payment, or its order, is to be canceled and no answer to that has come."""
        cancels = (entry for entry in self._open.values() if isinstance(entry, JournaledCancel))
        return any(cancel.covers(payment_id, reference) for cancel in cancels)

    def check_repeat(self, scan: PaymentScan) -> None:
        """Raises ValueError when `scan` is to be canceled, or has the id of an open scan and another body."""
        if self.is_canceled(scan.payment_id, scan.reference):
            raise ValueError(f"order {scan.reference} is being canceled: use a new reference")
        known = self._open.get(f"scan {scan.payment_id}")
        if isinstance(known, JournaledScan) and not known.same_body(scan):
            raise ValueError(f"payment {scan.payment_id} was scanned with another code, amount or reference")

    async def add(self, request: PaymentScan | PaymentCancel | RefundCreate) -> JournaledOpen:
        """Keep what is about to be sent; returns once it is on the disk."""
        entry = self._entry(request)
        if entry.key in self._open:
            return self._open[entry.key]
        self._open[entry.key] = entry
        self._done.discard(entry.key)
        if self._writer is not None and entry.key in self._being_taken_out:
            await asyncio.wait([self._writer])
        if self._journal is not None:
            adding = asyncio.create_task(asyncio.to_thread(self._journal.add, entry))
            self._adding.add(adding)
            adding.add_done_callback(self._adding.discard)
            await asyncio.shield(adding)
        return entry

    def settle(self, result: TerminalPaymentResult) -> None:
        """A payment's result was handed to the caller."""
        self._hear(result.payment_id, result.version)
        self.drop(f"scan {result.payment_id}")
        if result.status == Status.APPROVED:
            return
        self.drop(f"cancel {result.payment_id}")  # it is over, with or without the cancel
        if result.status == Status.CANCELED and result.reference is not None:
            self.drop(f"cancel {result.reference}")

    def settle_cancel(self, entry: JournaledOpen, result: TerminalPaymentResult) -> None:
        """The answer to a cancel was handed to the caller: its scans will not be approved any more."""
        self.settle(result)
        self.drop(entry.key)
        if isinstance(entry, JournaledCancel):
            for other in list(self._open.values()):
                if isinstance(other, JournaledScan) and entry.covers(other.payment_id, other.reference):
                    self.drop(other.key)

    def settle_refund(self, result: TerminalRefundResult) -> None:
        """A refund's result was handed to the caller."""
        self._hear(result.payment_id, result.version)
        self.drop(f"refund {result.refund_id}")

    def drop(self, key: str) -> None:
        """Nothing is to be found out about it any more."""
        if self._open.pop(key, None) is not None and self._journal is not None:
            self._done.add(key)
            self._write_soon()

    def resume_from(self, since_ms: int | None) -> None:
        """Remember where to resume; the first time at once, later with the next change or at the end."""
        self.since_ms = since_ms
        if self._written_since_ms is None:
            self._write_soon()

    async def close(self) -> None:
        """Write what is left to write."""
        if self._is_unwritten():
            self._write_soon()
        if self._writer is not None:
            await self._writer

    def _entry(self, request: PaymentScan | PaymentCancel | RefundCreate) -> JournaledOpen:
        fields = request.model_dump(exclude={"message_id", "type"})
        fields |= {"device": self._device, "created_at_ms": local_time_ms()}
        match request:
            case PaymentScan():
                return JournaledScan(**fields)
            case PaymentCancel():
                return JournaledCancel(**fields)
            case RefundCreate():
                return JournaledRefund(**fields)

    def _is_canceled_scan(self, entry: JournaledOpen) -> bool:
        return isinstance(entry, JournaledScan) and self.is_canceled(entry.payment_id, entry.reference)

    def _hear(self, payment_id: UUID, version: int) -> None:
        if self._journal is not None:
            self._heard_since[payment_id] = version

    def _is_unwritten(self) -> bool:
        return bool(self._heard_since or self._done or self.since_ms != self._written_since_ms)

    def _write_soon(self) -> None:
        if self._journal is not None and (self._writer is None or self._writer.done()):
            self._writer = asyncio.create_task(self._write(), name="pos-journal")

    async def _write(self) -> None:
        while self._journal is not None and self._is_unwritten():
            if self._adding:  # what was given up before it was sent is added before it is taken out
                await asyncio.wait(self._adding)
            heard, self._heard_since = self._heard_since, {}
            done, self._done = self._done, set()
            self._being_taken_out = done
            self._written_since_ms = since_ms = self.since_ms
            await asyncio.to_thread(self._journal.settle, heard, done, since_ms)
            self._being_taken_out = set()
