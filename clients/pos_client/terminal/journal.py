"""A till's journal: a crash-safe file of scans, cancels and refunds whose outcome is unknown.

Each entry is written and synced to disk before its first send, and removed once its outcome is known. A later process
finds out what became of the remaining entries.

Each line is one record, `crc32 json`. A damaged line is skipped without affecting the others. Every record names its
device and the device's key, because another activation may write to the same file. A record belongs to this till if
either is equal: the key stays when the server gets another address, the device when it gets another key. The file is
authoritative: each change rereads it under a lock (flock on its folder), so two processes with the same credentials
lose nothing. Only one of them recovers what an earlier process left (`claim`).

The file contains payment codes, which are secrets: a code can be spent for about a minute, and until its scan is
settled. So the mode is 0600, and a settled scan is removed by rewriting the file, not marked.
"""

import fcntl
import hashlib
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
"""Upper bound of entries without an outcome; beyond it the oldest are dropped with a warning."""
VERSIONS_MAX = 100
"""Upper bound of payment versions kept over a restart, to recognize a replay of the last seconds."""
FILE_BYTES_MAX = 128 * 1024
"""Beyond this size the file is rewritten within the bounds above."""

log = logging.getLogger("pos_client")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    device: str
    key_id: str | None = None


class _Entry(_Record):
    """A request that may have been sent and whose outcome is unknown. `created_at_ms`: Unix ms of this machine."""

    created_at_ms: int

    @property
    def key(self) -> str:
        """The entry's unique name in the journal of its till."""
        raise NotImplementedError


class JournaledScan(_Entry):
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
        """The fields that must be equal for the server to accept a repeat."""
        return self.model_dump(include=_SCAN_BODY)

    def same_body(self, scan: PaymentScan) -> bool:
        """Return whether the server would accept `scan` as a repeat of this one."""
        return self.body == scan.model_dump(include=_SCAN_BODY)


class JournaledCancel(_Entry):
    """A cancel without an answer; it names the payment's id or its order number."""

    type: Literal["cancel"] = "cancel"
    payment_id: UUID | None
    reference: Reference | None

    @property
    def key(self) -> str:
        return f"cancel {self.payment_id or self.reference}"

    def covers(self, payment_id: UUID, reference: str | None) -> bool:
        """Return whether the cancel names this payment or its order."""
        return self.payment_id == payment_id or (self.reference is not None and self.reference == reference)


class JournaledRefund(_Entry):
    """A refund without an answer: it may have been made."""

    type: Literal["refund"] = "refund"
    refund_id: UUID
    payment_id: UUID
    amount_minor: PositiveMinor

    @property
    def key(self) -> str:
        return f"refund {self.refund_id}"


JournalEntry = JournaledScan | JournaledCancel | JournaledRefund
_SCAN_BODY = {"payment_id", "reference", "amount_minor", "currency", "code", "entry", "purpose"}


class _Version(_Record):
    """The latest version of a payment that this till has received."""

    type: Literal["heard"] = "heard"
    payment_id: UUID
    version: int


class _Since(_Record):
    """The time from which the server replays results (device/resume.py)."""

    type: Literal["since"] = "since"
    since_ms: Annotated[int, Field(ge=0, le=2**53 - 1)]


_AnyRecord = JournalEntry | _Version | _Since
_records: TypeAdapter[_AnyRecord] = TypeAdapter(Annotated[_AnyRecord, Field(discriminator="type")])


def key_id_of(device_key: bytes) -> str:
    """Return a name for a device's key that does not reveal it."""
    return hashlib.sha256(b"pos-journal" + device_key).hexdigest()[:16]


class Journal:
    """The journal file of one till: `device` names the till, `key_id` its key. Thread-safe and process-safe.

    It never stops a sale: a file that cannot be read or written is logged, and nothing is kept.
    """

    def __init__(self, path: Path, device: str, key_id: str | None = None) -> None:
        self._path = path
        self._claim: int | None = None
        self.device = device
        self.key_id = key_id
        self.foreign: dict[str, int] = {}
        """Loaded numbers of open entries of other tills in the same file, by device."""
        self.entries: dict[str, JournalEntry] = {}
        """Loaded entries of this till without an outcome, by key, oldest first."""
        self.versions: dict[UUID, int] = {}
        """Loaded payment versions, by payment id."""
        self.since_ms: int | None = None
        """Loaded time to resume from, in the server's Unix ms."""

    def claim(self) -> bool:
        """Claim the right to recover until `release`, or the end of the process. False if another process has it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._claim = os.open(self._path.with_name(f"{self._path.name}.lock"), os.O_RDONLY | os.O_CREAT, 0o600)
            fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        except OSError as error:
            log.warning("cannot lock the journal %s: %s", self._path, error.strerror)
        return True

    def release(self) -> None:
        """Give the claim up."""
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    def load(self) -> None:
        """Load the records that earlier processes of this till wrote."""
        with self._locked("read"):
            for record in self._read():
                if not self._is_mine(record):
                    if isinstance(record, _Entry):
                        self.foreign[record.device] = self.foreign.get(record.device, 0) + 1
                    continue
                match record:
                    case JournaledScan() | JournaledCancel() | JournaledRefund():
                        self.entries[record.key] = record
                    case _Version():
                        self.versions[record.payment_id] = record.version
                    case _Since():
                        self.since_ms = record.since_ms

    def add(self, entry: JournalEntry) -> None:
        """Append an entry and sync it to disk. Call this before the first send of its request."""
        with self._locked("write"):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                # A power cut or a full disk may have torn the previous line, so start a new one.
                file.write(b"\n" + _line(entry))
                file.flush()
                os.fsync(file.fileno())
                is_full = os.fstat(file.fileno()).st_size > FILE_BYTES_MAX
            if is_full:
                self._rewrite({}, (), None)

    def settle(self, versions: Mapping[UUID, int], settled_keys: Collection[str], since_ms: int | None) -> None:
        """Store `versions` by payment id, and remove their scans and the entries of `settled_keys`."""
        with self._locked("write"):
            self._rewrite(versions, settled_keys, since_ms)

    def _rewrite(self, versions: Mapping[UUID, int], settled_keys: Collection[str], since_ms: int | None) -> None:
        open_entries: dict[tuple[str, str], JournalEntry] = {}
        version_records: dict[UUID, _Version] = {}
        for record in self._read():
            match record:
                case _Version() if self._is_mine(record):
                    version_records[record.payment_id] = record
                case _Since() if self._is_mine(record):
                    since_ms = max(since_ms or 0, record.since_ms)
                case JournaledScan() if record.payment_id in versions:
                    pass
                case JournaledScan() | JournaledCancel() | JournaledRefund():
                    is_mine = self._is_mine(record)
                    if not is_mine or record.key not in settled_keys:
                        open_entries[self.device if is_mine else record.device, record.key] = record
        for payment_id, version in versions.items():
            version_records.pop(payment_id, None)
            version_records[payment_id] = _Version(
                device=self.device, key_id=self.key_id, payment_id=payment_id, version=version
            )
        for device, key in list(open_entries)[:-OPEN_MAX]:
            log.warning("the journal is full: dropped %s, whose outcome is unknown", key)
            del open_entries[device, key]
        records: list[_Record] = [*open_entries.values(), *list(version_records.values())[-VERSIONS_MAX:]]
        if since_ms is not None:
            records.append(_Since(device=self.device, key_id=self.key_id, since_ms=since_ms))
        write_private(self._path, b"".join(map(_line, records)))

    def _is_mine(self, record: _Record) -> bool:
        return record.device == self.device or (record.key_id is not None and record.key_id == self.key_id)

    def _read(self) -> Iterator[_AnyRecord]:
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        damaged_count = 0
        for line in filter(None, lines):
            try:
                yield _record(line)
            except ValueError:  # includes pydantic's ValidationError
                damaged_count += 1
        if damaged_count:
            log.warning("skipped %d damaged lines of the journal %s", damaged_count, self._path)

    @contextmanager
    def _locked(self, verb: str) -> Iterator[None]:
        try:
            with locked_folder(self._path.parent) as folder:
                is_new = not self._path.exists()
                yield
                if is_new and self._path.exists():
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
