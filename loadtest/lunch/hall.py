"""One process's share of the stores: its tills and wallets, connected, and who waits for whom."""

import base64
import random
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool

from loadtest.lunch.customer import Checkout
from loadtest.lunch.device import Device, Identity, Wallet
from loadtest.lunch.outcomes import Failure
from loadtest.lunch.plan import Flow, customers, shard
from loadtest.lunch.recorder import Recorder
from pos_server.core.credentials.device_keys import DeviceKind

_CONNECTING_AT_ONCE = 50
_NOBODY_S = 0.1


def share_of(stores: Mapping[str, Any], index: int, count: int) -> dict[str, Any]:
    """What worker `index` of `count` needs of what `open_stores` returned: its lanes and their devices, no others."""
    return {
        "lanes": [
            {
                "store": lane["store"],
                "till": stores["tills"][lane["till"]],
                "wallets": [stores["wallets"][place] for place in lane["wallets"]],
            }
            for lane in shard(stores["lanes"], index, count)
        ]
    }


class Hall:
    """The tills and customers of one process."""

    def __init__(self, url: str, share: Mapping[str, Any], recorder: Recorder, speed: float) -> None:
        self.is_open = Event()
        self._speed = speed
        self._recorder = recorder
        self._chance = random.Random()  # noqa: S311 - nothing secret
        self._flows = customers(self._chance)
        self._tills: deque[tuple[int, Device]] = deque()
        self._tills_in_all = len(share["lanes"])
        self._wallets: list[Wallet] = []
        self._waiting: dict[tuple[int, bool], deque[Wallet]] = defaultdict(deque)
        for lane in share["lanes"]:
            self._tills.append((lane["store"], Device(url, _identity(lane["till"]), recorder)))
            for one in lane["wallets"]:
                wallet = Wallet(url, _identity(one), recorder, one["balance_minor"])
                self._wallets.append(wallet)
                self._waiting[lane["store"], one["is_poor"]].append(wallet)

    def open(self) -> None:
        """Connect all wallets, some at once. Raises SystemExit when they cannot."""
        pool = Pool(_CONNECTING_AT_ONCE)
        for connecting in [pool.spawn(wallet.connect) for wallet in self._wallets]:
            try:
                connecting.get()
            except Failure as failure:
                raise SystemExit(f"a wallet cannot connect: {failure}") from None
        self.is_open.set()

    def close(self) -> None:
        """Everybody goes home."""
        for wallet in self._wallets:
            wallet.close()

    @property
    def is_busy(self) -> bool:
        """Whether somebody works at a till."""
        return len(self._tills) < self._tills_in_all

    def take_till(self) -> tuple[int, Device, Checkout]:
        """A till that nobody works at, with its store; waits for one."""
        while not self._tills:
            gevent.sleep(_NOBODY_S)
        store, till = self._tills.popleft()
        return store, till, Checkout(till, self._recorder, self._chance, self._speed)

    def leave_till(self, store: int, till: Device) -> None:
        """The cashier has gone."""
        till.close()
        self._tills.append((store, till))

    def serve_next(self, store: int, checkout: Checkout) -> None:
        """The next customer of this store, with what the day's mix has for them."""
        flow = next(self._flows)
        waiting = self._waiting[store, flow is Flow.INSUFFICIENT_FUNDS]
        while not waiting:
            gevent.sleep(_NOBODY_S)
        wallet = waiting.popleft()
        if checkout.serve(flow, wallet):
            waiting.append(wallet)


def _identity(plain: Mapping[str, Any]) -> Identity:
    key = base64.b64decode(plain["key"])
    return Identity(DeviceKind(plain["kind"]), plain["number"], plain["slot"], plain["kid"], key)
