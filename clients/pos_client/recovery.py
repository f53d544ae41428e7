"""What a till carries over a restart: the scans it lost sight of, and a journal that is written in the background."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from pos_server.core.messages import PaymentScan, TerminalPaymentResult

from .connection import local_time_ms
from .credentials import Credentials
from .errors import OutcomeUnknown
from .journal import Journal, JournaledScan


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


class Recovery:
    """The journal of one TerminalClient, or its stand-in where there is none.

    A scan is journaled before it is sent, and waited for. It is settled in the background, several at a time: were
    that lost, the scan would be sent again for nothing. The memory of it here is what `scan` compares repeats with.
    """

    def __init__(self, path: Path | None, credentials: Credentials) -> None:
        self._journal = None if path is None else Journal(path, f"{credentials.number} at {credentials.server}")
        self._open: dict[UUID, JournaledScan] = {}
        self.heard: Mapping[UUID, int] = {}
        self.since_ms: int | None = None
        if self._journal is not None:
            self._journal.load()
            self._open |= self._journal.scans
            self.heard = self._journal.heard
            self.since_ms = self._journal.since_ms
        self.left_open = tuple(self._open.values())
        """The scans of earlier processes without an outcome, oldest first."""
        self._adding: set[asyncio.Task[None]] = set()
        self._to_settle: dict[UUID, int] = {}
        self._nothing_happened: set[UUID] = set()
        self._written_since_ms = self.since_ms
        self._writer: asyncio.Task[None] | None = None

    def was_left_open(self, payment_id: UUID) -> bool:
        """Whether an earlier process may have sent a scan with this id."""
        return any(entry.payment_id == payment_id for entry in self.left_open)

    def check_repeat(self, scan: PaymentScan) -> None:
        """Raises ValueError when `scan` has the id of an open scan and another body."""
        known = self._open.get(scan.payment_id)
        if known is not None and not known.same_body(scan):
            raise ValueError(f"payment {scan.payment_id} was scanned with another code, amount or reference")

    async def add(self, scan: PaymentScan) -> None:
        """Keep a scan that is about to be sent; returns once it is on the disk."""
        if self._journal is None or scan.payment_id in self._open:
            return
        entry = self._open[scan.payment_id] = JournaledScan(
            device=self._journal.device,
            created_at_ms=local_time_ms(),
            **scan.model_dump(exclude={"message_id", "type"}),
        )
        adding = asyncio.create_task(asyncio.to_thread(self._journal.add, entry))
        self._adding.add(adding)
        adding.add_done_callback(self._adding.discard)
        await asyncio.shield(adding)

    def settle(self, payment_id: UUID, version: int | None) -> None:
        """A version of a payment was handed to the caller; None: its scan was never acted on."""
        if self._journal is None:
            return
        if version is not None:
            self._to_settle[payment_id] = version
        elif payment_id in self._open:
            self._nothing_happened.add(payment_id)
        if self._open.pop(payment_id, None) is not None:
            self._write_soon()

    def resume_from(self, since_ms: int | None) -> None:
        """Remember where to resume; the first time at once, later with the next scan or at the end."""
        self.since_ms = since_ms
        if self._journal is not None and self._written_since_ms is None:
            self._write_soon()

    async def close(self) -> None:
        """Write what is left to write."""
        if self._journal is not None and (self._to_settle or self.since_ms != self._written_since_ms):
            self._write_soon()
        if self._writer is not None:
            await self._writer

    def _write_soon(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="pos-journal")

    async def _write(self) -> None:
        while self._journal is not None and (
            self._to_settle or self._nothing_happened or self.since_ms != self._written_since_ms
        ):
            if self._adding:  # a scan that was given up before it was sent is added before it is taken out
                await asyncio.wait(self._adding)
            heard, self._to_settle = self._to_settle, {}
            nothing_happened, self._nothing_happened = self._nothing_happened, set()
            self._written_since_ms = since_ms = self.since_ms
            await asyncio.to_thread(self._journal.settle, heard, nothing_happened, since_ms)
