"""A till's state across restarts: the requests left open, and a journal that is updated in the background."""

import asyncio
import logging
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
from .journal import Journal, JournaledCancel, JournaledRefund, JournaledScan, JournalEntry, key_id_of

log = logging.getLogger("pos_client")


@dataclass(frozen=True, slots=True)
class RecoveredScan:
    """A scan of an earlier process and its outcome. `amount_minor` is in minor units of `currency`.

    While the outcome is unknown, the journal keeps the scan, and the next start asks again.
    """

    payment_id: UUID
    reference: str
    amount_minor: int
    currency: str
    created_at_ms: int
    outcome: TerminalPaymentResult | OutcomeUnknown


@dataclass(frozen=True, slots=True)
class RecoveredCancel:
    """A cancel of an earlier process, by payment id or reference, and its outcome.

    While the outcome is unknown, the journal keeps the cancel, and the next start retries it.
    """

    payment_id: UUID | None
    reference: str | None
    created_at_ms: int
    outcome: TerminalPaymentResult | RequestRefused | RequestUnanswered


@dataclass(frozen=True, slots=True)
class RecoveredRefund:
    """A refund of an earlier process and its outcome. `amount_minor` is in minor units of `currency`.

    While the outcome is unknown, the journal keeps the refund, and the next start retries it.
    """

    refund_id: UUID
    payment_id: UUID
    amount_minor: int
    currency: str
    created_at_ms: int
    outcome: TerminalRefundResult | RefundRefused | RefundUnknown


Recovered = RecoveredScan | RecoveredCancel | RecoveredRefund


class Recovery:
    """The open requests of one TerminalClient, in memory and, with a `path`, in its journal.

    `add` waits until the entry is on disk. Removals are written in the background, several at a time: a lost removal
    only causes a needless resend. Repeats are compared with the entries in memory.
    """

    def __init__(self, path: Path | None, credentials: Credentials) -> None:
        self._device = f"{credentials.number} at {credentials.server}"
        self._key_id = key_id_of(credentials.device_key)
        self._journal = None if path is None else Journal(path, self._device, self._key_id)
        self._entries: dict[str, JournalEntry] = {}
        self.versions: Mapping[UUID, int] = {}
        self.since_ms: int | None = None
        self.foreign: Mapping[str, int] = {}
        """Numbers of open requests of other tills in the same journal, by device."""
        is_alone = True
        if self._journal is not None:
            is_alone = self._journal.claim()
            self._journal.load()
            self.foreign = self._journal.foreign
            self._entries |= self._journal.entries
            self.versions = self._journal.versions
            self.since_ms = self._journal.since_ms
        self._loaded_keys = frozenset(self._entries)
        self.left_open = tuple(
            entry for entry in self._entries.values() if is_alone and not self._is_canceled_scan(entry)
        )
        """Entries of earlier processes, oldest first. A cancel stands for the scans that it covers. None while another
        process of this till runs, because they are its own."""
        self._additions: set[asyncio.Task[None]] = set()
        # Changes that the journal does not contain yet, and the removals that are being written.
        self._unwritten_versions: dict[UUID, int] = {}
        self._settled_keys: set[str] = set()
        self._keys_in_removal: set[str] = set()
        self._written_since_ms = self.since_ms
        self._writer: asyncio.Task[None] | None = None

    def was_left_open(self, payment_id: UUID) -> bool:
        """Return whether an earlier process may have sent a scan with this id."""
        return f"scan {payment_id}" in self._loaded_keys

    def is_canceled(self, payment_id: UUID, reference: str | None) -> bool:
        """Return whether an unanswered cancel names this payment or its order."""
        cancels = (entry for entry in self._entries.values() if isinstance(entry, JournaledCancel))
        return any(cancel.covers(payment_id, reference) for cancel in cancels)

    def check_repeat(self, scan: PaymentScan) -> None:
        """Raise ValueError if `scan` is being canceled, or if its id belongs to an open scan with another body."""
        if self.is_canceled(scan.payment_id, scan.reference):
            raise ValueError(f"order {scan.reference} is being canceled: use a new reference")
        entry = self._entries.get(f"scan {scan.payment_id}")
        if isinstance(entry, JournaledScan) and not entry.same_body(scan):
            raise ValueError(f"payment {scan.payment_id} was scanned with another code, amount or reference")

    async def add(self, request: PaymentScan | PaymentCancel | RefundCreate) -> JournalEntry:
        """Journal a request before its first send. Returns once the entry is on disk."""
        entry = self._entry(request)
        if entry.key in self._entries:
            return self._entries[entry.key]
        self._entries[entry.key] = entry
        self._settled_keys.discard(entry.key)
        if self._writer is not None and entry.key in self._keys_in_removal:
            await asyncio.wait([self._writer])
        if self._journal is not None:
            addition = asyncio.create_task(asyncio.to_thread(self._journal.add, entry))
            self._additions.add(addition)
            addition.add_done_callback(self._additions.discard)
            await asyncio.shield(addition)
        return entry

    def settle(self, result: TerminalPaymentResult) -> None:
        """Remove the entries that a payment's result settles. Call this when the caller gets the result."""
        self._add_version(result.payment_id, result.version)
        self.drop(f"scan {result.payment_id}")
        if result.status == Status.APPROVED:
            return
        self.drop(f"cancel {result.payment_id}")  # the payment has ended, with or without the cancel
        if result.status == Status.CANCELED and result.reference is not None:
            self.drop(f"cancel {result.reference}")

    def settle_cancel(self, entry: JournalEntry, result: TerminalPaymentResult) -> None:
        """Remove a cancel that was answered, and the scans that it covers: they can no longer be approved."""
        self.settle(result)
        self.drop(entry.key)
        if isinstance(entry, JournaledCancel):
            for other in list(self._entries.values()):
                if isinstance(other, JournaledScan) and entry.covers(other.payment_id, other.reference):
                    self.drop(other.key)

    def settle_refund(self, result: TerminalRefundResult) -> None:
        """Remove a refund whose result the caller gets."""
        self._add_version(result.payment_id, result.version)
        self.drop(f"refund {result.refund_id}")

    def drop(self, key: str) -> None:
        """Remove an entry, if it exists."""
        if self._entries.pop(key, None) is not None and self._journal is not None:
            self._settled_keys.add(key)
            self._write_soon()

    def resume_from(self, since_ms: int | None) -> None:
        """Set the time to resume from. The first is written at once, later ones with the next change or at close."""
        self.since_ms = since_ms
        if self._written_since_ms is None:
            self._write_soon()

    async def close(self) -> None:
        """Write the remaining changes."""
        if self._is_unwritten():
            self._write_soon()
        if self._writer is not None:
            await self._writer
        if self._journal is not None:
            self._journal.release()

    def _entry(self, request: PaymentScan | PaymentCancel | RefundCreate) -> JournalEntry:
        fields = request.model_dump(exclude={"message_id", "type"})
        fields |= {"device": self._device, "key_id": self._key_id, "created_at_ms": local_time_ms()}
        match request:
            case PaymentScan():
                return JournaledScan(**fields)
            case PaymentCancel():
                return JournaledCancel(**fields)
            case RefundCreate():
                return JournaledRefund(**fields)

    def _is_canceled_scan(self, entry: JournalEntry) -> bool:
        return isinstance(entry, JournaledScan) and self.is_canceled(entry.payment_id, entry.reference)

    def _add_version(self, payment_id: UUID, version: int) -> None:
        if self._journal is not None:
            self._unwritten_versions[payment_id] = version

    def _is_unwritten(self) -> bool:
        return bool(self._unwritten_versions or self._settled_keys or self.since_ms != self._written_since_ms)

    def _write_soon(self) -> None:
        if self._journal is not None and (self._writer is None or self._writer.done()):
            self._writer = asyncio.create_task(self._write(), name="pos-journal")
            self._writer.add_done_callback(_log_failure)

    async def _write(self) -> None:
        while self._journal is not None and self._is_unwritten():
            if self._additions:  # an entry that was dropped before its send must be added before it is removed
                await asyncio.wait(self._additions)
            versions, self._unwritten_versions = self._unwritten_versions, {}
            settled_keys, self._settled_keys = self._settled_keys, set()
            self._keys_in_removal = settled_keys
            since_ms = self.since_ms
            try:
                await asyncio.to_thread(self._journal.settle, versions, settled_keys, since_ms)
            except Exception:
                # For the next write: the next change starts it, or `close`. An entry that was added again stays.
                self._unwritten_versions = versions | self._unwritten_versions
                self._settled_keys |= settled_keys - self._entries.keys()
                raise
            finally:
                self._keys_in_removal = set()
            self._written_since_ms = since_ms


def _log_failure(writer: asyncio.Task[None]) -> None:
    if not writer.cancelled() and (failure := writer.exception()) is not None:
        log.error("the journal could not be updated, and the next change tries again: %s", failure)
