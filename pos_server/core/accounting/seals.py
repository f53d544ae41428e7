"""A hash chain over the transfers of past days, which detects rows that were changed, removed or added later.

    digests = for each transfer, in order of id:  id:u64 ‖ first 8 bytes of SHA-256(its row)
    hash    = SHA-256("seal-1" ‖ previous_hash ‖ day:ISO 8601 ‖ first_id:u64 ‖ last_id:u64 ‖ transfers:u64 ‖ digests)

Integers are big-endian; the first previous_hash is 32 zero bytes. Anyone who can write to the database can also build a
new chain, so keep a copy of the last hash elsewhere: each seal covers all seals before it.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

NO_HASH = bytes(32)
_ENTRY = struct.Struct(">Q8s")


@dataclass(frozen=True, slots=True)
class Seal:
    """One link of the chain: the transfers with ids from `first_id` to `last_id`, sealed for a day (ISO 8601)."""

    number: int
    day: str
    first_id: int
    last_id: int
    transfers: int
    digests: bytes
    previous_hash: bytes
    hash: bytes

    def expected_hash(self) -> bytes:
        """Return the hash that this seal must have, by the formula in the module docstring."""
        head = struct.pack(">QQQ", self.first_id, self.last_id, self.transfers)
        return sha256(b"seal-1" + self.previous_hash + self.day.encode() + head + self.digests).digest()


def transfer_digest(
    *,
    transfer_id: int,
    kind: str,
    source_id: UUID,
    debit_account_id: int,
    credit_account_id: int,
    amount_minor: int,
    currency: str,
    wallet_number: int | None,
    created_at_us: int,
    merchant_id: int | None,
) -> bytes:
    """Return the sealed digest of a transfer, equal to the SQL function of the same name.

    `created_at_us` is in Unix microseconds. `merchant_id` is None for a transfer that was stored before transfers named
    their merchant; its digest does not include one.
    """
    columns = (transfer_id, kind, source_id, debit_account_id, credit_account_id, amount_minor, currency)
    merchant = () if merchant_id is None else (merchant_id,)
    return sha256("|".join(map(str, (*columns, wallet_number or 0, created_at_us, *merchant))).encode()).digest()[:8]


def pack_digests(entries: dict[int, bytes]) -> bytes:
    """Return transfer digests, given by ascending id, in their sealed form."""
    return b"".join(_ENTRY.pack(transfer_id, digest) for transfer_id, digest in entries.items())


def unpack_digests(digests: bytes) -> Iterator[tuple[int, bytes]]:
    """Return ids and digests from their sealed form. Raises struct.error if the bytes are not in that form."""
    return _ENTRY.iter_unpack(digests)


def missing_digests(seal: Seal, present: dict[int, bytes]) -> dict[int, bytes]:
    """Return the sealed digests whose transfer ids are not in `present`, by id; none if the seal was edited."""
    if seal.expected_hash() != seal.hash:
        return {}
    return {number: digest for number, digest in unpack_digests(seal.digests) if number not in present}


def seal_violations(seal: Seal, previous_hash: bytes, present: dict[int, bytes]) -> list[str]:
    """Return a sentence for each violation of a seal; `present` holds the current digests by transfer id."""
    if seal.previous_hash != previous_hash or seal.expected_hash() != seal.hash:
        return [f"seal {seal.number} of {seal.day} or the seal before it was edited"]
    sealed = dict(unpack_digests(seal.digests))
    violations = [f"transfer {number} was removed" for number in sealed.keys() - present.keys()]
    violations += [f"transfer {number} was added" for number in present.keys() - sealed.keys()]
    violations += [
        f"transfer {number} was changed"
        for number in sealed.keys() & present.keys()
        if sealed[number] != present[number]
    ]
    return sorted(violations)
