"""A chain of seals over the transfers, so that a row that was changed or removed afterwards is found and named.

    digests = for each transfer, in order of id:  id:u64 ‖ first 8 bytes of SHA-256(its row)
    hash    = SHA-256("seal-1" ‖ previous_hash ‖ day:ISO 8601 ‖ first_id:u64 ‖ last_id:u64 ‖ transfers:u64 ‖ digests)

Integers are big-endian; the first previous_hash is 32 zero bytes. Whoever may write to the database could make a whole
new chain, so keep the last hash somewhere else: each seal vouches for all before it.
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
    """One link: the transfers with ids from `first_id` to `last_id`, as the day (ISO 8601) was sealed with them."""

    number: int
    day: str
    first_id: int
    last_id: int
    transfers: int
    digests: bytes
    previous_hash: bytes
    hash: bytes

    def expected_hash(self) -> bytes:
        """The hash that this seal must have, by the module's formula."""
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
) -> bytes:
    """What is sealed of a transfer, as the SQL function of this name makes it. `created_at_us`: Unix microseconds."""
    columns = (transfer_id, kind, source_id, debit_account_id, credit_account_id, amount_minor, currency)
    return sha256("|".join(map(str, (*columns, wallet_number or 0, created_at_us))).encode()).digest()[:8]


def pack_digests(entries: dict[int, bytes]) -> bytes:
    """The sealed form of transfers' digests by id, which are in order."""
    return b"".join(_ENTRY.pack(transfer_id, digest) for transfer_id, digest in entries.items())


def unpack_digests(digests: bytes) -> Iterator[tuple[int, bytes]]:
    """Ids and digests from their sealed form. Raises struct.error when it is not one."""
    return _ENTRY.iter_unpack(digests)


def gone(seal: Seal, found: dict[int, bytes]) -> dict[int, bytes]:
    """The sealed transfers that are not among `found`, by id; none of a seal that was edited."""
    if seal.expected_hash() != seal.hash:
        return {}
    return {number: digest for number, digest in unpack_digests(seal.digests) if number not in found}


def broken(seal: Seal, previous_hash: bytes, found: dict[int, bytes]) -> list[str]:
    """What is wrong with a seal, each in words that name it; `found` holds the digests of now, by transfer id."""
    if seal.previous_hash != previous_hash or seal.expected_hash() != seal.hash:
        return [f"seal {seal.number} of {seal.day} was edited, or the one before it"]
    sealed = dict(unpack_digests(seal.digests))
    problems = [f"transfer {number} was removed" for number in sealed.keys() - found.keys()]
    problems += [f"transfer {number} was added" for number in found.keys() - sealed.keys()]
    problems += [
        f"transfer {number} was changed" for number in sealed.keys() & found.keys() if sealed[number] != found[number]
    ]
    return sorted(problems)
