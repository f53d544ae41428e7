"""Write and read the files of the archive: gzipped JSON lines (format: docs/archive.md).

The first line is a header. Each further line is a unit: a payment with its refunds and transfers, or the transfer of a
settlement. A line contains all columns of its rows that are not null, under their names. A file is complete before it
gets its final name, and synced to disk before the ledger records it.
"""

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import file_digest
from pathlib import Path
from typing import Any
from uuid import UUID

from ..core.accounting.seals import transfer_digest
from ..core.errors import PosError
from ..core.payments.payment import MerchantKey

FORMAT, FORMAT_VERSION = "pos-archive", 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class PartUnreadable(PosError):
    """A part is missing, truncated or in another format; the text names it and the cause."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The keys in one line of a part, and the digests of its transfers by id. `payment` is None for a settlement."""

    payment: MerchantKey | None
    refunds: list[MerchantKey]
    digests: dict[int, bytes]


def ids_and_merchants(keys: Iterable[MerchantKey]) -> tuple[list[UUID], list[int]]:
    """Return the ids and the merchants of keys as two lists, the form in which queries take them."""
    pairs = list(keys)
    return [each for _, each in pairs], [merchant_id for merchant_id, _ in pairs]


def part_name(number: int) -> str:
    """Return the file name of a part; numbers start at 1."""
    return f"payments-{number:06}.jsonl.gz"


class PartWriter:
    """Writer of one part, under a temporary name until `finish`. Its methods block and raise OSError."""

    def __init__(self, folder: Path, number: int, before: datetime, previous: bytes | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / part_name(number)
        self._partial = self._path.with_name(self._path.name + ".partial")
        self._raw = self._partial.open("wb")
        # No time and no name in the gzip header: the same units give the same file.
        self._packed = gzip.GzipFile(filename="", fileobj=self._raw, mode="wb", compresslevel=6, mtime=0)
        header = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
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

        An existing file of that name is replaced: it is left from a run that did not record it.
        """
        try:
            self._packed.close()
            self._raw.flush()
            os.fsync(self._raw.fileno())
            self._raw.close()
        except OSError:
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


def read_units(path: Path) -> Iterator[Unit]:
    """Yield the units of a part. Raises PartUnreadable, possibly after some units."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            header = json.loads(next(lines, "null"))
            if (header["format"], header["version"]) != (FORMAT, FORMAT_VERSION):
                raise PartUnreadable(f"{path.name} cannot be read: not an archive part, or from a newer version")
            for line in lines:
                yield _unit_of(json.loads(line))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise PartUnreadable(f"{path.name} cannot be read: {error or type(error).__name__}") from None


def _unit_of(line: dict[str, Any]) -> Unit:
    return Unit(
        payment=_key_of(line["payment"]) if "payment" in line else None,
        refunds=[_key_of(refund) for refund in line.get("refunds", [])],
        digests={_id_of(transfer): _digest_of(transfer) for transfer in line["transfers"]},
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
