"""The store day: who comes when, what each customer does, and which worker has which till. Pure."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")


class Flow(StrEnum):
    """What happens at the till with one customer."""

    APPROVE = "approve"
    INSUFFICIENT_FUNDS = "insufficient funds"
    PIN = "pin"
    CANCEL = "cancel"
    REFUND = "refund"
    RESCAN = "rescan"
    WIFI_DROP = "wi-fi drop"


# Of each 50 customers in a row. What goes wrong comes more often than in life, so that a short test sees all of it.
MIX = {
    Flow.APPROVE: 35,
    Flow.INSUFFICIENT_FUNDS: 3,
    Flow.PIN: 2,
    Flow.CANCEL: 2,
    Flow.REFUND: 3,
    Flow.RESCAN: 2,
    Flow.WIFI_DROP: 3,
}

# Seconds, from and to: a till takes a payment about each 13 s.
GOODS_S = (4.0, 10.0)
BAG_S = (2.0, 5.0)
NEXT_CUSTOMER_S = (1.0, 4.0)
PIN_S = (2.0, 4.0)
CASHIER_NOTICES_S = (0.5, 2.0)

PRICE_MINOR = (2_00, 14_00)
# Over the default POS_PIN_FREE_MINOR_MAX.
PIN_PRICE_MINOR = (51_00, 75_00)
BALANCE_MINOR = 1_000_00
POOR_BALANCE_MINOR = 1_00


@dataclass(frozen=True, slots=True)
class Hours:
    """A part of the day: its share of the time, and the share of the tills that are open at its end."""

    name: str
    share: float
    open_share: float


DAY = (Hours("morning", 0.2, 0.4), Hours("lunch rush", 0.6, 1.0), Hours("evening", 0.2, 0.5))
# The rush has begun when this share of the test is over, tills open and the first customers served.
RUSH = (0.25, 0.8)


def hours_at(fraction: float) -> Hours:
    """The part of the day when this fraction of it has passed."""
    ends = 0.0
    for hours in DAY:
        ends += hours.share
        if fraction < ends:
            return hours
    return DAY[-1]


def tills_open(fraction: float, tills: int) -> int:
    """How many of the tills are open when this fraction of the day has passed; at least one."""
    return max(1, round(tills * hours_at(fraction).open_share))


def customers(chance: random.Random) -> Iterator[Flow]:
    """What the customers of one process do, one after the other: each fifty are exactly MIX, shuffled."""
    while True:
        fifty = [flow for flow, count in MIX.items() for _ in range(count)]
        chance.shuffle(fifty)
        yield from fifty


@dataclass(frozen=True, slots=True)
class Lane:
    """A till of a store, and the customers who live near it. `till` and `wallets` are places in lists of devices."""

    store: int
    till: int
    wallets: tuple[int, ...]


def lanes_of(stores: int, tills: int, wallets: int) -> list[Lane]:
    """All lanes of so many stores, with so many tills a store and so many wallets a till."""
    return [
        Lane(place // tills, place, tuple(range(place * wallets, (place + 1) * wallets)))
        for place in range(stores * tills)
    ]


def shard(items: Sequence[T], index: int, count: int) -> list[T]:
    """What worker number `index` of `count` has of them. A till and its customers stay together, as one item."""
    return list(items[index::count])


def is_poor(place: int, wallets: int) -> bool:
    """Whether this wallet holds too little for anything: the first of each till's `wallets`."""
    return place % wallets == 0
