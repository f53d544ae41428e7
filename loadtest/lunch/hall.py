"""One process's share of the stores: its connected tills and wallets, and the queues of waiting customers."""

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
_POLL_S = 0.1


def share_of(stores: Mapping[str, Any], index: int, count: int) -> dict[str, Any]:
    """Return the share of worker `index` of `count` in the result of `open_stores`: its lanes and their devices."""
    return {
        "lanes": [
            {
                "store": lane["store"],
                "till": stores["tills"][lane["till"]],
                "wallets": [stores["wallets"][wallet] for wallet in lane["wallets"]],
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
        self._rng = random.Random()  # noqa: S311 - nothing secret
        self._flows = customers(self._rng)
        self._free_tills: deque[tuple[int, Device]] = deque()
        self._till_count = len(share["lanes"])
        self._wallets: list[Wallet] = []
        self._waiting: dict[tuple[int, bool], deque[Wallet]] = defaultdict(deque)
        for lane in share["lanes"]:
            self._free_tills.append((lane["store"], Device(url, _identity(lane["till"]), recorder)))
            for data in lane["wallets"]:
                wallet = Wallet(url, _identity(data), recorder, data["balance_minor"])
                self._wallets.append(wallet)
                self._waiting[lane["store"], data["is_poor"]].append(wallet)

    def open(self) -> None:
        """Connect all wallets. Raises SystemExit if one cannot connect."""
        pool = Pool(_CONNECTING_AT_ONCE)
        for greenlet in [pool.spawn(wallet.connect) for wallet in self._wallets]:
            try:
                greenlet.get()
            except Failure as failure:
                raise SystemExit(f"a wallet cannot connect: {failure}") from None
        self.is_open.set()

    def close(self) -> None:
        """Disconnect all wallets."""
        for wallet in self._wallets:
            wallet.close()

    @property
    def is_busy(self) -> bool:
        """True while a till is in use."""
        return len(self._free_tills) < self._till_count

    def take_till(self) -> tuple[int, Device, Checkout]:
        """Wait for a free till and return it with its store."""
        while not self._free_tills:
            gevent.sleep(_POLL_S)
        store, till = self._free_tills.popleft()
        return store, till, Checkout(till, self._recorder, self._rng, self._speed)

    def leave_till(self, store: int, till: Device) -> None:
        """Disconnect a till and make it free again."""
        till.close()
        self._free_tills.append((store, till))

    def serve_next(self, store: int, checkout: Checkout) -> None:
        """Serve the next customer of this store with the next flow of the mix."""
        flow = next(self._flows)
        waiting = self._waiting[store, flow is Flow.INSUFFICIENT_FUNDS]
        while not waiting:
            gevent.sleep(_POLL_S)
        wallet = waiting.popleft()
        if checkout.serve(flow, wallet):
            waiting.append(wallet)


def _identity(data: Mapping[str, Any]) -> Identity:
    key = base64.b64decode(data["key"])
    return Identity(DeviceKind(data["kind"]), data["number"], data["slot"], data["kid"], key)
