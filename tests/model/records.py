"""The records of the model. Times are in ms."""

from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

Key = tuple[int, UUID]
"""A merchant and an id of one of its payments or refunds."""


class Code(NamedTuple):
    """A scanned text and its contents. `device` is (wallet, slot), or None for a text that is no code."""

    text: str
    device: tuple[int, int] | None
    step: int = 0
    seq: int = 0
    generation: int = 1
    genuine: bool = True


class Answer(NamedTuple):
    """An outcome: a refusal, or the current state of the payment, with a refund if the request was one."""

    refused: str | None = None
    payment_id: UUID | None = None
    merchant: int | None = None
    status: str | None = None
    decline: str | None = None
    version: int | None = None
    reference: str | None = None
    amount: int | None = None
    paid_by: UUID | None = None
    refunded: int | None = None
    wallet: int | None = None
    balance: int | None = None
    tries_left: int = 0
    replayed: bool = False
    refund: tuple[UUID, int] | None = None


@dataclass
class Device:
    generation: int = 1
    active: bool = True
    last_code: tuple[int, int] = (0, 0)


@dataclass
class Wallet:
    number: int
    currency: str
    balance: int
    status: str = "active"
    pin_generation: int = 0
    wrong_pins: int = 0
    locked_until: int = 0


@dataclass
class Terminal:
    merchant: int
    active: bool = True


@dataclass
class Payment:
    id: UUID
    merchant: int
    reference: str | None
    body: object | None
    amount: int
    currency: str
    status: str
    purpose: str = "sale"
    wallet: int | None = None
    terminal: int | None = None
    decline: str | None = None
    paid_by: UUID | None = None
    version: int = 1
    expires: int = 0
    approved: int | None = None
    without_pin: bool = False
    wrong_pins: int = 0
    refunds: list[int] = field(default_factory=list)

    @property
    def occupies_reference(self) -> bool:
        return self.status in ("pending", "approved", "canceled")
