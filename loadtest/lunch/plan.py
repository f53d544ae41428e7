"""The plan of the store day: opening hours, the flows of the customers, and the tills of each worker. Pure."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")


class Flow(StrEnum):
    """The course of events at the till with one customer."""

    APPROVE = "approve"
    INSUFFICIENT_FUNDS = "insufficient funds"
    PIN = "pin"
    CANCEL = "cancel"
    REFUND = "refund"
    RESCAN = "rescan"
    WIFI_DROP = "wi-fi drop"


# Customers per flow in every 50 consecutive customers. Problems are more frequent than in reality, so that a short test
# includes all of them.
MIX = {
    Flow.APPROVE: 35,
    Flow.INSUFFICIENT_FUNDS: 3,
    Flow.PIN: 2,
    Flow.CANCEL: 2,
    Flow.REFUND: 3,
    Flow.RESCAN: 2,
    Flow.WIFI_DROP: 3,
}

# Ranges in seconds. A till takes a payment about every 13 s.
GOODS_S = (4.0, 10.0)
BAG_S = (2.0, 5.0)
NEXT_CUSTOMER_S = (1.0, 4.0)
PIN_S = (2.0, 4.0)
CASHIER_NOTICES_S = (0.5, 2.0)

PRICE_MINOR = (2_00, 14_00)
# Above the default POS_PIN_FREE_MINOR_MAX.
PIN_PRICE_MINOR = (51_00, 75_00)
BALANCE_MINOR = 1_000_00
POOR_BALANCE_MINOR = 1_00


@dataclass(frozen=True, slots=True)
class Hours:
    """A part of the day: its share of the time, and the share of open tills at its end."""

    name: str
    share: float
    open_share: float


DAY = (Hours("morning", 0.2, 0.4), Hours("lunch rush", 0.6, 1.0), Hours("evening", 0.2, 0.5))
# The measured part of the rush, as fractions of the day: all tills are open and have served their first customers.
RUSH = (0.25, 0.8)


def hours_at(fraction: float) -> Hours:
    """Return the part of the day at this fraction of it."""
    ends = 0.0
    for hours in DAY:
        ends += hours.share
        if fraction < ends:
            return hours
    return DAY[-1]


def tills_open(fraction: float, tills: int) -> int:
    """Return the number of open tills at this fraction of the day, at least one."""
    return max(1, round(tills * hours_at(fraction).open_share))


def customers(rng: random.Random) -> Iterator[Flow]:
    """Iterate over the flows of the customers of one process: every fifty are exactly MIX, shuffled."""
    while True:
        flows = [flow for flow, count in MIX.items() for _ in range(count)]
        rng.shuffle(flows)
        yield from flows


@dataclass(frozen=True, slots=True)
class Lane:
    """A till of a store with its customers. `till` and `wallets` are indexes in the lists of devices."""

    store: int
    till: int
    wallets: tuple[int, ...]


def lanes_of(stores: int, tills: int, wallets: int) -> list[Lane]:
    """Return the lanes of `stores` stores, with `tills` tills per store and `wallets` wallets per till."""
    return [
        Lane(till // tills, till, tuple(range(till * wallets, (till + 1) * wallets))) for till in range(stores * tills)
    ]


def shard(items: Sequence[T], index: int, count: int) -> list[T]:
    """Return the items of worker `index` of `count`."""
    return list(items[index::count])


def is_poor(index: int, wallets: int) -> bool:
    """Return whether the wallet with this index has too little money for any sale: the first of each till."""
    return index % wallets == 0
