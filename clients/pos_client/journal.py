"""A till's journal: the scans whose outcome it does not know, in a file that survives a power cut.

A scan is written, and synced to the disk, before it is first sent; once its outcome is known it is taken out. What an
earlier process left in it can then be sent again: the same id and the same body never charge twice.

One record a line, `crc32 json`: a line that is torn or damaged is skipped, and the others stand. Every record names
its device, because another activation may write to the same file. The file is the truth, not the memory: each change
reads it anew under a lock (flock on its folder), so two processes with the same credentials lose nothing.

The file holds payment codes, which are secrets of short life: a code is worth money for a minute, and until its scan
is settled. Hence mode 0600, and hence a settled scan is not marked but removed, by writing the file anew.
"""

import logging
import os
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from pos_server.core.messages import PaymentScan, Reference
from pos_server.core.money import Currency, PositiveMinor

from .files import locked_folder, write_private

OPEN_SCANS_MAX = 128
"""Scans without an outcome that are kept; the oldest are dropped for newer ones, with a warning."""
HEARD_MAX = 100
"""Results remembered over a restart, so that a replay of the last seconds is not news again."""
FILE_BYTES_MAX = 128 * 1024
"""At this size the file is written anew, within the bounds above."""

log = logging.getLogger("pos_client")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    device: str


class JournaledScan(_Record):
    """A scan that may have been sent and whose outcome is not known. `created_at_ms`: Unix ms of this machine."""

    type: Literal["scan"] = "scan"
    payment_id: UUID
    reference: Reference
    amount_minor: PositiveMinor
    currency: Currency
    code: Annotated[str, Field(repr=False)]
    created_at_ms: int

    def same_body(self, scan: PaymentScan) -> bool:
        """Whether the server would take `scan` for a repeat of this one."""
        mine = (self.payment_id, self.reference, self.amount_minor, self.currency, self.code)
        return mine == (scan.payment_id, scan.reference, scan.amount_minor, scan.currency, scan.code)


class _Heard(_Record):
    """A version of a payment that this till knows of."""

    type: Literal["heard"] = "heard"
    payment_id: UUID
    version: int


class _Since(_Record):
    """From when on the server is to replay (resume.py)."""

    type: Literal["since"] = "since"
    since_ms: Annotated[int, Field(ge=0, le=2**53 - 1)]


_records: TypeAdapter[JournaledScan | _Heard | _Since] = TypeAdapter(
    Annotated[JournaledScan | _Heard | _Since, Field(discriminator="type")]
)


class Journal:
    """The journal file of one till; `device` names the till. Safe to use from several threads and processes.

    It never stops a sale: when the file cannot be read or written, it says so in the log and remembers nothing.
    """

    def __init__(self, path: Path, device: str) -> None:
        self._path = path
        self.device = device
        self.scans: dict[UUID, JournaledScan] = {}
        """What `load` found: this till's scans without an outcome, oldest first."""
        self.heard: dict[UUID, int] = {}
        """What `load` found: versions known, by payment."""
        self.since_ms: int | None = None
        """What `load` found: the server's Unix ms to resume from."""

    def load(self) -> None:
        """Read what earlier processes left."""
        with self._locked("read"):
            for record in self._read():
                if record.device != self.device:
                    continue
                match record:
                    case JournaledScan():
                        self.scans[record.payment_id] = record
                    case _Heard():
                        self.heard[record.payment_id] = record.version
                    case _Since():
                        self.since_ms = record.since_ms

    def add(self, scan: JournaledScan) -> None:
        """Append a scan and sync it to the disk: call it before the scan is first sent."""
        with self._locked("write"):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                # The line before may be torn, for want of power or of space: start a new one in any case.
                file.write(b"\n" + _line(scan))
                file.flush()
                os.fsync(file.fileno())
                full = os.fstat(file.fileno()).st_size > FILE_BYTES_MAX
            if full:
                self._rewrite({}, (), None)

    def settle(self, heard: Mapping[UUID, int], nothing_happened: Collection[UUID], since_ms: int | None) -> None:
        """Take scans out: those whose result was heard (payment: version), and those that were never acted on."""
        with self._locked("write"):
            self._rewrite(heard, nothing_happened, since_ms)

    def _rewrite(self, heard: Mapping[UUID, int], nothing_happened: Collection[UUID], since_ms: int | None) -> None:
        scans: dict[UUID, JournaledScan] = {}
        known: dict[UUID, _Heard] = {}
        for record in self._read():
            match record:
                case JournaledScan() if record.payment_id not in heard and record.payment_id not in nothing_happened:
                    scans[record.payment_id] = record
                case _Heard() if record.device == self.device:
                    known[record.payment_id] = record
                case _Since() if record.device == self.device:
                    since_ms = max(since_ms or 0, record.since_ms)
        for payment_id, version in heard.items():
            known.pop(payment_id, None)
            known[payment_id] = _Heard(device=self.device, payment_id=payment_id, version=version)
        for payment_id in list(scans)[:-OPEN_SCANS_MAX]:
            log.warning("the journal is full: payment %s, whose outcome is unknown, was dropped", payment_id)
            del scans[payment_id]
        kept: list[_Record] = [*scans.values(), *list(known.values())[-HEARD_MAX:]]
        if since_ms is not None:
            kept.append(_Since(device=self.device, since_ms=since_ms))
        write_private(self._path, b"".join(map(_line, kept)))

    def _read(self) -> Iterator[JournaledScan | _Heard | _Since]:
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        damaged = 0
        for line in filter(None, lines):
            try:
                yield _record(line)
            except ValueError:  # pydantic's ValidationError is one
                damaged += 1
        if damaged:
            log.warning("skipped %d damaged lines of the journal %s", damaged, self._path)

    @contextmanager
    def _locked(self, verb: str) -> Iterator[None]:
        try:
            with locked_folder(self._path.parent) as folder:
                created = not self._path.exists()
                yield
                if created and self._path.exists():
                    os.fsync(folder)
        except OSError as error:
            log.warning("cannot %s the journal %s: %s", verb, self._path, error.strerror)


def _line(record: _Record) -> bytes:
    content = record.model_dump_json().encode()
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _record(line: bytes) -> JournaledScan | _Heard | _Since:
    checksum, _, content = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(content):
        raise ValueError("damaged")
    return _records.validate_json(content)
