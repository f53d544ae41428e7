"""Write and read the files of the archive: gzipped JSON lines (format: docs/archive.md).

The first line is a header. Each further line is a unit: a payment with its refunds and transfers, or the transfer of a
settlement. A line contains all columns of its rows that are not null, under their names. A file is complete before it
gets its final name, and synced to disk before the ledger records it.
"""

import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import file_digest
from pathlib import Path
from typing import Any
from uuid import UUID

from ..core.accounting.seals import transfer_digest
from ..core.errors import PosError
from ..core.payments.payment import MerchantKey

FORMAT, FORMAT_VERSION = "pos-archive", 2
_VERSIONS_READ = (1, FORMAT_VERSION)
# What a payment's first transfer is called; its amount is the payment's.
_PAYING = ("payment", "top_up", "withdrawal")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class PartUnreadable(PosError):
    """A part is missing, truncated or in another format; the text names it and the cause."""


class PartTaken(PosError):
    """A file has the name of the part and is not left from an interrupted run of this ledger."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"{self.path} exists, and this ledger has not written it: it belongs to another ledger, or to a copy of "
            "this one. Use another folder. Its payments remain in the ledger"
        )


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt to write a part: the id of the ledger, the attempt's name, and those of earlier attempts."""

    ledger_id: UUID
    name: UUID
    earlier: Collection[UUID]


@dataclass(frozen=True, slots=True)
class Unit:
    """The keys in one line of a part, and its transfers: digests by id, and the sum of each account.

    `payment` is None for a settlement. `status` and `reference` are those of the payment. `is_paid_right` is False if
    the transfer of a payment has another amount.
    """

    payment: MerchantKey | None
    status: str
    reference: str | None
    refunds: list[MerchantKey]
    digests: dict[int, bytes]
    sums: Counter[int]
    is_paid_right: bool


def ids_and_merchants(keys: Iterable[MerchantKey]) -> tuple[list[UUID], list[int]]:
    """Return the ids and the merchants of keys as two lists, the form in which queries take them."""
    pairs = list(keys)
    return [each for _, each in pairs], [merchant_id for merchant_id, _ in pairs]


def part_name(number: int) -> str:
    """Return the file name of a part; numbers start at 1."""
    return f"payments-{number:06}.jsonl.gz"


class PartWriter:
    """Writer of one part, under a temporary name until `finish`. Its methods block and raise OSError."""

    def __init__(self, folder: Path, number: int, before: datetime, previous: bytes | None, attempt: Attempt) -> None:
        """Raise PartTaken if a file of that name must not be replaced."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / part_name(number)
        self._attempt = attempt
        self._refuse_other_parts()
        for name in attempt.earlier:
            self._partial_path(name).unlink(missing_ok=True)
        self._partial = self._partial_path(attempt.name)
        self._raw = self._partial.open("xb")
        # No time and no name in the gzip header: the same units give the same file.
        self._packed = gzip.GzipFile(filename="", fileobj=self._raw, mode="wb", compresslevel=6, mtime=0)
        header = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "ledger": str(attempt.ledger_id),
            "attempt": str(attempt.name),
            "part": number,
            "before": before.astimezone(UTC).isoformat(),
            "previous_sha256": previous and previous.hex(),
        }
        self.write([json.dumps(header)])

    def write(self, lines: Iterable[str]) -> None:
        """Append lines, given without newlines."""
        for line in lines:
            self._packed.write(line.encode() + b"\n")

    def finish(self) -> bytes:
        """Sync the part to disk, rename it to its final name and return its SHA-256.

        A file of that name is replaced if it is left from an earlier attempt of this ledger, which did not record it.
        Otherwise raises PartTaken.
        """
        try:
            self._refuse_other_parts()
            self._packed.close()
            self._raw.flush()
            os.fsync(self._raw.fileno())
            self._raw.close()
        except (OSError, PartTaken):
            self.discard()
            raise
        digest = sha256_of(self._partial)
        self._partial.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return digest

    def _partial_path(self, attempt: UUID) -> Path:
        return self._path.with_name(f"{self._path.name}.{attempt}.partial")

    def _refuse_other_parts(self) -> None:
        if not self._path.exists() and not self._path.is_symlink():
            return
        with suppress(PartUnreadable):
            found = read_header(self._path)
            if found.get("attempt") in {str(name) for name in self._attempt.earlier}:
                return
        raise PartTaken(self._path)

    def discard(self) -> None:
        """Delete the unfinished part."""
        with suppress(OSError):
            self._packed.close()
            self._raw.close()
        self._partial.unlink(missing_ok=True)


def sha256_of(path: Path) -> bytes:
    """Return the SHA-256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").digest()


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a part. Raises PartUnreadable."""
    with _reading(path), gzip.open(path, "rt", encoding="utf-8") as lines:
        return _header_of(path, next(lines, "null"))


def read_units(path: Path) -> Iterator[Unit]:
    """Yield the units of a part. Raises PartUnreadable, possibly after some units."""
    with _reading(path), gzip.open(path, "rt", encoding="utf-8") as lines:
        _header_of(path, next(lines, "null"))
        for line in lines:
            yield _unit_of(json.loads(line))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise PartUnreadable(f"{path.name} cannot be read: {error or type(error).__name__}") from None


def _header_of(path: Path, line: str) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(line)
    if header["format"] != FORMAT or header["version"] not in _VERSIONS_READ:
        raise PartUnreadable(f"{path.name} cannot be read: not an archive part, or from a newer version")
    return header


def _unit_of(line: dict[str, Any]) -> Unit:
    payment, transfers = line.get("payment"), line["transfers"]
    sums = Counter[int]()
    for transfer in transfers:
        sums[transfer["credit_account_id"]] += transfer["amount_minor"]
        sums[transfer["debit_account_id"]] -= transfer["amount_minor"]
    paid = [transfer["amount_minor"] for transfer in transfers if transfer["kind"] in _PAYING]
    return Unit(
        payment=None if payment is None else _key_of(payment),
        status="" if payment is None else str(payment["status"]),
        reference=None if payment is None else payment.get("reference"),
        refunds=[_key_of(refund) for refund in line.get("refunds", [])],
        digests={_id_of(transfer): _digest_of(transfer) for transfer in transfers},
        sums=sums,
        is_paid_right=payment is None or paid in ([], [payment["amount_minor"]]),
    )


def _key_of(row: dict[str, Any]) -> MerchantKey:
    return int(row["merchant_id"]), UUID(row["id"])


def _id_of(transfer: dict[str, Any]) -> int:
    transfer_id = int(transfer["id"])
    if not 0 < transfer_id < 2**63:
        raise ValueError(f"{transfer_id} is not a transfer id")
    return transfer_id


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
