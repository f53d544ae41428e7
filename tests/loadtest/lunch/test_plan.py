"""The plan of the day: flows, opening hours, and the tills of each worker."""

import random
from collections import Counter
from itertools import islice

import pytest

from loadtest.lunch.hall import share_of
from loadtest.lunch.plan import DAY, MIX, RUSH, Flow, customers, hours_at, is_poor, lanes_of, shard, tills_open


def test_the_mix_is_exact_over_each_fifty_customers() -> None:
    flows = list(islice(customers(random.Random(7)), 100))
    assert sum(MIX.values()) == 50
    assert Counter(flows[:50]) == Counter(flows[50:]) == Counter(MIX)
    assert set(MIX) == set(Flow)
    assert flows[:50] != flows[50:]


def test_the_day_has_a_morning_a_rush_and_an_evening() -> None:
    assert [hours_at(fraction).name for fraction in (0, 0.19, 0.2, 0.79, 0.81, 0.99, 1.0)] == [
        *("morning", "morning", "lunch rush", "lunch rush", "evening", "evening", "evening")
    ]
    assert sum(hours.share for hours in DAY) == pytest.approx(1)
    assert [tills_open(fraction, 100) for fraction in (0, 0.5, 0.9)] == [40, 100, 50]
    assert tills_open(0, 1) == 1


def test_the_measured_rush_lies_within_the_rush() -> None:
    assert {hours_at(fraction).name for fraction in (RUSH[0], RUSH[1] - 0.001)} == {"lunch rush"}


def test_each_till_and_its_customers_are_on_one_worker() -> None:
    lanes = lanes_of(stores=3, tills=5, wallets=4)
    shards = [shard(lanes, index, 4) for index in range(4)]
    assert sorted((lane for part in shards for lane in part), key=lambda lane: lane.till) == lanes
    assert sorted(map(len, shards)) == [3, 4, 4, 4]
    assert Counter(lane.store for lane in lanes) == {0: 5, 1: 5, 2: 5}
    wallets = [wallet for lane in lanes for wallet in lane.wallets]
    assert wallets == list(range(60))


def test_each_till_has_one_poor_customer() -> None:
    for lane in lanes_of(stores=2, tills=3, wallets=4):
        assert [is_poor(wallet, 4) for wallet in lane.wallets] == [True, False, False, False]


def test_a_worker_gets_only_its_own_devices() -> None:
    stores = {
        "merchant_id": 1,
        "lanes": [{"store": 0, "till": 0, "wallets": (0, 1)}, {"store": 0, "till": 1, "wallets": (2, 3)}],
        "tills": ["till 0", "till 1"],
        "wallets": ["wallet 0", "wallet 1", "wallet 2", "wallet 3"],
    }
    assert share_of(stores, 1, 2) == {"lanes": [{"store": 0, "till": "till 1", "wallets": ["wallet 2", "wallet 3"]}]}
