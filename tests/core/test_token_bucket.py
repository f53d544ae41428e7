"""The token bucket, with literal times."""

from hypothesis import given
from hypothesis import strategies as st

from pos_server.core.rate_limits import TokenBucket


def test_a_burst_then_the_rate() -> None:
    bucket = TokenBucket(2, 3, now_s=10)
    assert [bucket.take(10) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(10.4), bucket.take(10.5), bucket.take(10.5)] == [False, True, False]
    assert [bucket.take(1000) for _ in range(4)] == [True, True, True, False]


@given(st.lists(st.floats(0, 5), max_size=60))
def test_never_more_than_burst_and_rate_allow(gaps_s: list[float]) -> None:
    bucket, now_s, taken = TokenBucket(4, 5, now_s=0), 0.0, 0
    for gap_s in gaps_s:
        now_s += gap_s
        taken += bucket.take(now_s)
        assert taken <= 5 + 4 * now_s + 1e-6
