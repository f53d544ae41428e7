"""Write and read the files of the archive: gzipped JSON lines (format: docs/archive.md).

The first line is a header. Each further line is a unit: a payment with its refunds and transfers, or the transfer of a
settlement. A line contains all columns of its rows that are not null, under their names. A file is complete before it
gets its final name, and synced to disk before the ledger records it.
"""

import gzip
import json
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fcntl import LOCK_EX, LOCK_NB, flock
from hashlib import file_digest
from pathlib import Path
from secrets import token_hex
from typing import Any
from uuid import UUID

from ..core.accounting.seals import transfer_digest
from ..core.errors import PosError
from ..core.payments.payment import MerchantKey

FORMAT, FORMAT_VERSION = "pos-archive", 2
_VERSIONS_READ = (1, FORMAT_VERSION)
_REMEDY = "Keep it, and use another folder. The payments of this part remain in the ledger"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class PartUnreadable(PosError):
    """A part is missing, truncated or in another format; the text names it and the cause."""


class PartExists(PosError):
    """A file has the name of a part and is not left from an interrupted run of this ledger; the file stays."""

    def __init__(self, path: Path, cause: str) -> None:
        super().__init__(f"{path} exists, and this ledger has not written it: {cause}. {_REMEDY}")


@dataclass(frozen=True, slots=True)
class Unit:
    """One line of a part. For a settlement, the fields of the payment are None.

    `digests` are those of the transfers, by id. `entries` are the accounts of the transfers with credits as positive
    amounts, and `moved` the sums of the amounts by kind of transfer.
    """

    payment: MerchantKey | None
    status: str | None
    reference: str | None
    amount_minor: int | None
    refunded_minor: int
    refunds: list[MerchantKey]
    refunds_minor: int
    digests: dict[int, bytes]
    entries: list[tuple[int, int]]
    moved: dict[str, int]


def unit_violations(unit: Unit) -> list[str]:
    """Return a sentence for each amount of a payment that differs from its transfers, which the seals prove."""
    if unit.payment is None:
        return []
    paid = sum(unit.moved.get(kind, 0) for kind in ("payment", "top_up", "withdrawal"))
    is_paid = unit.status == "approved" or (unit.status == "canceled" and "cancel" in unit.moved)
    expected = {
        "amount": (unit.amount_minor if is_paid else 0, paid),
        "canceled amount": (paid if unit.status == "canceled" else 0, unit.moved.get("cancel", 0)),
        "refunded amount": (unit.refunded_minor, unit.moved.get("refund", 0)),
        "sum of refunds": (unit.refunds_minor, unit.moved.get("refund", 0)),
    }
    return [
        f"payment {unit.payment[1]} has the {name} {stored}, but its transfers have {moved}"
        for name, (stored, moved) in expected.items()
        if stored != moved
    ]


def ids_and_merchants(keys: Iterable[MerchantKey]) -> tuple[list[UUID], list[int]]:
    """Return the ids and the merchants of keys as two lists, the form in which queries take them."""
    pairs = list(keys)
    return [each for _, each in pairs], [merchant_id for merchant_id, _ in pairs]


def part_name(number: int) -> str:
    """Return the file name of a part; numbers start at 1."""
    return f"payments-{number:06}.jsonl.gz"


class PartWriter:
    """Writer of one part, under a temporary name until `publish`. Its methods block and raise OSError."""

    def __init__(self, folder: Path, number: int, before: datetime, previous: bytes | None, ledger_id: UUID) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / part_name(number)
        # The name is new in each run: another run in this folder never writes to the same file.
        self._partial = self._path.with_name(f"{self._path.name}.{token_hex(4)}.partial")
        self._delete_leftovers()
        self._raw = self._partial.open("xb")
        flock(self._raw, LOCK_EX | LOCK_NB)
        # No time and no name in the gzip header: the same units give the same file.
        self._packed = gzip.GzipFile(filename="", fileobj=self._raw, mode="wb", compresslevel=6, mtime=0)
        header = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "ledger": str(ledger_id),
            "part": number,
            "before": before.astimezone(UTC).isoformat(),
            "previous_sha256": previous and previous.hex(),
        }
        self._ledger_id = str(ledger_id)
        self._digest, self._is_published = b"", False
        self.write([json.dumps(header)])

    def write(self, lines: Iterable[str]) -> None:
        """Append lines, given without newlines."""
        for line in lines:
            self._packed.write(line.encode() + b"\n")

    def complete(self) -> bytes:
        """Sync the part to disk under its temporary name and return its SHA-256."""
        try:
            self._packed.close()
            self._raw.flush()
            os.fsync(self._raw.fileno())
            self._digest = sha256_of(self._partial)
        except OSError:
            self.discard()
            raise
        return self._digest

    def make_room(self, published: bytes | None) -> None:
        """Raise PartExists if the final name belongs to a file that this ledger neither needs nor left unrecorded.

        `published` is the SHA-256 of the file that this ledger published last. A run that was killed left it without a
        record; it gets another name and is not deleted, because a restored copy of this ledger may have recorded it.
        """
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        # A link leads to a file that anything else may replace. Opening a pipe or a device would wait.
        if not stat.S_ISREG(mode):
            raise PartExists(self._path, "it is not a regular file")
        digest = sha256_of(self._path)
        if digest == published:
            self._is_published = digest == self._digest
            if not self._is_published:
                self._path.rename(self._path.with_name(f"{self._path.name}.{digest.hex()[:8]}.unrecorded"))
            return
        try:
            owner = read_header(self._path).get("ledger")
        except PartUnreadable:
            raise PartExists(self._path, "it is not an archive part") from None
        if owner != self._ledger_id:
            raise PartExists(self._path, f"it belongs to another ledger ({owner or 'without an id'})")
        raise PartExists(self._path, "it belongs to a copy of this one, or this one was restored from a backup")

    def publish(self) -> None:
        """Give the part its final name. A file that exists under it is never replaced."""
        try:
            if not self._is_published:
                # Unlike a rename, a link fails if the name exists, even if another run has just created it.
                os.link(self._partial, self._path)
        except FileExistsError:
            raise PartExists(self._path, "another run has just created it") from None
        finally:
            self.discard()
        self._sync_folder()

    def discard(self) -> None:
        """Delete the temporary file."""
        with suppress(OSError):
            self._packed.close()
        with suppress(OSError):
            self._raw.close()
        self._partial.unlink(missing_ok=True)

    def _delete_leftovers(self) -> None:
        """Delete temporary files of killed runs; those of running ones are locked."""
        for leftover in self._path.parent.glob(f"{self._path.name}.*.partial"):
            with suppress(OSError), leftover.open("rb") as file:
                flock(file, LOCK_EX | LOCK_NB)
                leftover.unlink()

    def _sync_folder(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sha256_of(path: Path) -> bytes:
    """Return the SHA-256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").digest()


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a part. Raises PartUnreadable."""
    with _reading(path) as lines:
        return _header_of(path, lines)


def read_units(path: Path) -> Iterator[Unit]:
    """Yield the units of a part. Raises PartUnreadable, possibly after some units."""
    with _reading(path) as lines:
        _header_of(path, lines)
        for line in lines:
            yield _unit_of(json.loads(line))


@contextmanager
def _reading(path: Path) -> Iterator[Iterator[str]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield lines
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise PartUnreadable(f"{path.name} cannot be read: {error or type(error).__name__}") from None


def _header_of(path: Path, lines: Iterator[str]) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(next(lines, "null"))
    if header["format"] != FORMAT or header["version"] not in _VERSIONS_READ:
        raise PartUnreadable(f"{path.name} cannot be read: not an archive part, or from a newer version")
    return header


def _unit_of(line: dict[str, Any]) -> Unit:
    payment, refunds, transfers = line.get("payment", {}), line.get("refunds", []), line["transfers"]
    moved: dict[str, int] = {}
    for transfer in transfers:
        moved[transfer["kind"]] = moved.get(transfer["kind"], 0) + int(transfer["amount_minor"])
    return Unit(
        payment=_key_of(payment) if payment else None,
        status=_text_of(payment.get("status")),
        reference=_text_of(payment.get("reference")),
        amount_minor=payment.get("amount_minor"),
        refunded_minor=int(payment.get("refunded_minor", 0)),
        refunds=[_key_of(refund) for refund in refunds],
        refunds_minor=sum(int(refund["amount_minor"]) for refund in refunds),
        digests={_id_of(transfer): _digest_of(transfer) for transfer in transfers},
        entries=[
            entry
            for transfer in transfers
            for entry in (
                (_bigint_of(transfer["credit_account_id"]), _bigint_of(transfer["amount_minor"])),
                (_bigint_of(transfer["debit_account_id"]), -_bigint_of(transfer["amount_minor"])),
            )
        ],
        moved=moved,
    )


def _key_of(row: dict[str, Any]) -> MerchantKey:
    return _bigint_of(row["merchant_id"]), UUID(row["id"])


def _id_of(transfer: dict[str, Any]) -> int:
    return _bigint_of(transfer["id"])


def _bigint_of(value: Any) -> int:
    number = int(value)
    if not 0 < number < 2**63:
        raise ValueError(f"{number} is not an id or an amount")
    return number


def _text_of(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or "\0" in value):
        raise ValueError(f"{value!r} is not a text of a payment")
    return value


def _digest_of(transfer: dict[str, Any]) -> bytes:
    return transfer_digest(
        transfer_id=transfer["id"],
        kind=transfer["kind"],
        source_id=UUID(transfer["source_id"]),
        debit_account_id=transfer["debit_account_id"],
        credit_account_id=transfer["credit_account_id"],
        amount_minor=transfer["amount_minor"],
        currency=transfer["currency"],
        wallet_number=transfer.get("wallet_number"),
        created_at_us=(datetime.fromisoformat(transfer["created_at"]) - _EPOCH) // timedelta(microseconds=1),
        merchant_id=transfer.get("merchant_id"),
    )
