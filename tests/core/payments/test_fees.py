"""Fees of sales and returned fees of refunds, as literal tables."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pos_server.core.payments.fees import returned_fee, sale_fee


@pytest.mark.parametrize(
    ("amount_minor", "fee_bps", "fee_fixed_minor", "fee_minor"),
    [
        (1_000, 0, 0, 0),
        (1_000, 145, 0, 15),  # 14.5: half a unit is rounded up
        (999, 145, 0, 14),  # 14.4855
        (999, 145, 7, 21),
        (1_000, 144, 0, 14),  # 14.4
        (1_000, 146, 0, 15),  # 14.6
        (33, 150, 0, 0),  # 0.495
        (34, 150, 0, 1),  # 0.51
        (50, 100, 0, 1),  # 0.5
        (150, 100, 0, 2),  # 1.5, not the even neighbor
        (250, 100, 0, 3),  # 2.5
        (49, 100, 0, 0),  # 0.49
        (1, 0, 25, 1),  # never more than the sale
        (25, 0, 25, 25),
        (26, 0, 25, 25),
        (30, 5_000, 20, 30),
        (1_000, 10_000, 0, 1_000),
        (1_000, 10_000, 5, 1_000),
        (2**53 - 1, 145, 25, 130_604_389_193_769),
    ],
)
def test_sale_fee(amount_minor: int, fee_bps: int, fee_fixed_minor: int, fee_minor: int) -> None:
    assert sale_fee(amount_minor, fee_bps, fee_fixed_minor) == fee_minor


@pytest.mark.parametrize(
    ("fee_minor", "amount_minor", "refunded_minor", "returned"),
    [
        (21, 999, 0, 0),
        (21, 999, 333, 7),
        (21, 999, 666, 14),
        (21, 999, 998, 20),
        (21, 999, 999, 21),
        (10, 1_000, 99, 0),
        (10, 1_000, 100, 1),
        (1, 1_000, 999, 0),
        (1, 1_000, 1_000, 1),
        (0, 1_000, 500, 0),
        (2**53 - 1, 2**53 - 1, 2**53 - 2, 2**53 - 2),
    ],
)
def test_returned_fee(fee_minor: int, amount_minor: int, refunded_minor: int, returned: int) -> None:
    assert returned_fee(fee_minor, amount_minor, refunded_minor) == returned


@given(
    amount_minor=st.integers(1, 2**53 - 1),
    fee_bps=st.integers(0, 10_000),
    fee_fixed_minor=st.integers(0, 10**6),
    cuts=st.lists(st.floats(0, 1), max_size=8),
)
def test_refunds_in_any_number_of_parts_return_the_whole_fee(
    amount_minor: int, fee_bps: int, fee_fixed_minor: int, cuts: list[float]
) -> None:
    fee = sale_fee(amount_minor, fee_bps, fee_fixed_minor)
    assert 0 <= fee <= amount_minor
    refunded = [0, *sorted(min(int(cut * amount_minor), amount_minor) for cut in cuts), amount_minor]
    returned = [returned_fee(fee, amount_minor, so_far) for so_far in refunded]
    steps = [after - before for before, after in pairwise(returned)]
    assert min(steps) >= 0
    assert sum(steps) == fee
