"""A till's journal: the scans, cancels and refunds whose outcome it does not know, in a file that survives a power cut.

Each is written, and synced to the disk, before it is first sent; once its outcome is known it is taken out. What an
earlier process left in it can then be sent again: the same id and the same body never charge or refund twice.

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

from pos_server.core.money import Currency, PositiveMinor
from pos_server.core.protocol.client_messages import PaymentScan
from pos_server.core.protocol.fields import Reference

from ..device.files import locked_folder, write_private

OPEN_MAX = 128
"""Records without an outcome that are kept; the oldest are dropped for newer ones, with a warning."""
HEARD_MAX = 100
"""Results remembered over a restart, so that a replay of the last seconds is not news again."""
FILE_BYTES_MAX = 128 * 1024
"""At this size the file is written anew, within the bounds above."""

log = logging.getLogger("pos_client")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    device: str


class _Open(_Record):
    """What may have been sent and whose outcome is not known. `created_at_ms`: Unix ms of this machine."""

    created_at_ms: int

    @property
    def key(self) -> str:
        """Names it in the journal of its till."""
        raise NotImplementedError


class JournaledScan(_Open):
    """A scan without an outcome."""

    type: Literal["scan"] = "scan"
    payment_id: UUID
    reference: Reference
    amount_minor: PositiveMinor
    currency: Currency
    code: Annotated[str, Field(repr=False)]
    entry: Literal["scanned", "typed"] = "scanned"
    purpose: Literal["sale", "top_up", "withdrawal"] = "sale"

    @property
    def key(self) -> str:
        return f"scan {self.payment_id}"

    @property
    def body(self) -> dict[str, object]:
        """The fields by which the server tells a repeat from another payment."""
        return self.model_dump(include=_SCAN_BODY)

    def same_body(self, scan: PaymentScan) -> bool:
        """Whether the server would take `scan` for a repeat of this one."""
        return self.body == scan.model_dump(include=_SCAN_BODY)


class JournaledCancel(_Open):
    """A payment that is to be canceled, by its id or else by its order number."""

    type: Literal["cancel"] = "cancel"
    payment_id: UUID | None
    reference: Reference | None

    @property
    def key(self) -> str:
        return f"cancel {self.payment_id or self.reference}"

    def covers(self, payment_id: UUID, reference: str | None) -> bool:
        """Whether it is about this payment, or about its order."""
        return self.payment_id == payment_id or (self.reference is not None and self.reference == reference)


class JournaledRefund(_Open):
    """A refund that may have been made."""

    type: Literal["refund"] = "refund"
    refund_id: UUID
    payment_id: UUID
    amount_minor: PositiveMinor

    @property
    def key(self) -> str:
        return f"refund {self.refund_id}"


JournaledOpen = JournaledScan | JournaledCancel | JournaledRefund
_SCAN_BODY = {"payment_id", "reference", "amount_minor", "currency", "code", "entry", "purpose"}


class _Heard(_Record):
    """A version of a payment that this till knows of."""

    type: Literal["heard"] = "heard"
    payment_id: UUID
    version: int


class _Since(_Record):
    """From when on the server is to replay (resume.py)."""

    type: Literal["since"] = "since"
    since_ms: Annotated[int, Field(ge=0, le=2**53 - 1)]


_AnyRecord = JournaledOpen | _Heard | _Since
_records: TypeAdapter[_AnyRecord] = TypeAdapter(Annotated[_AnyRecord, Field(discriminator="type")])


class Journal:
    """The journal file of one till; `device` names the till. Safe to use from several threads and processes.

    It never stops a sale: when the file cannot be read or written, it says so in the log and remembers nothing.
    """

    def __init__(self, path: Path, device: str) -> None:
        self._path = path
        self.device = device
        self.open: dict[str, JournaledOpen] = {}
        """What `load` found: what this till knows no outcome of, by key, oldest first."""
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
                    case JournaledScan() | JournaledCancel() | JournaledRefund():
                        self.open[record.key] = record
                    case _Heard():
                        self.heard[record.payment_id] = record.version
                    case _Since():
                        self.since_ms = record.since_ms

    def add(self, entry: JournaledOpen) -> None:
        """Append an entry and sync it to the disk: call it before its request is first sent."""
        with self._locked("write"):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                # The line before may be torn, for want of power or of space: start a new one in any case.
                file.write(b"\n" + _line(entry))
                file.flush()
                os.fsync(file.fileno())
                full = os.fstat(file.fileno()).st_size > FILE_BYTES_MAX
            if full:
                self._rewrite({}, (), None)

    def settle(self, heard: Mapping[UUID, int], done: Collection[str], since_ms: int | None) -> None:
        """Take out the scans whose result was heard (payment: version), and by their keys what else is over."""
        with self._locked("write"):
            self._rewrite(heard, done, since_ms)

    def _rewrite(self, heard: Mapping[UUID, int], done: Collection[str], since_ms: int | None) -> None:
        still_open: dict[tuple[str, str], JournaledOpen] = {}
        known: dict[UUID, _Heard] = {}
        for record in self._read():
            match record:
                case _Heard() if record.device == self.device:
                    known[record.payment_id] = record
                case _Since() if record.device == self.device:
                    since_ms = max(since_ms or 0, record.since_ms)
                case JournaledScan() if record.payment_id in heard:
                    pass
                case JournaledScan() | JournaledCancel() | JournaledRefund():
                    if record.device != self.device or record.key not in done:
                        still_open[record.device, record.key] = record
        for payment_id, version in heard.items():
            known.pop(payment_id, None)
            known[payment_id] = _Heard(device=self.device, payment_id=payment_id, version=version)
        for device, key in list(still_open)[:-OPEN_MAX]:
            log.warning("the journal is full: %s, whose outcome is unknown, was dropped", key)
            del still_open[device, key]
        kept: list[_Record] = [*still_open.values(), *list(known.values())[-HEARD_MAX:]]
        if since_ms is not None:
            kept.append(_Since(device=self.device, since_ms=since_ms))
        write_private(self._path, b"".join(map(_line, kept)))

    def _read(self) -> Iterator[_AnyRecord]:
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


def _record(line: bytes) -> _AnyRecord:
    checksum, _, content = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(content):
        raise ValueError("damaged")
    return _records.validate_json(content)
