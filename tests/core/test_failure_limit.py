"""FailureLimit, with literal times."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pos_server.core.rate_limits import FailureLimit

QUICK = settings(max_examples=50)


def limit(failures_max: int = 3, window_s: float = 60.0, keys_max: int = 10) -> FailureLimit:
    return FailureLimit(failures_max, window_s, keys_max)


@pytest.mark.parametrize(
    ("failures_at_s", "asked_at_s", "blocked_s"),
    [
        pytest.param([], 0.0, 0.0, id="nothing happened"),
        pytest.param([0.0, 1.0], 2.0, 0.0, id="one failure to spare"),
        pytest.param([0.0, 1.0, 2.0], 2.0, 58.0, id="blocked by the third"),
        pytest.param([0.0, 1.0, 2.0], 59.5, 0.5, id="until the window ends"),
        pytest.param([0.0, 1.0, 2.0], 60.0, 0.0, id="free at its end"),
        pytest.param([0.0, 1.0, 2.0], 1000.0, 0.0, id="free long after"),
        pytest.param([0.0, 1.0, 2.0, 30.0, 59.0], 59.0, 1.0, id="more failures do not prolong the window"),
        pytest.param([0.0, 59.0, 60.0], 60.0, 0.0, id="a window starts with a failure and does not slide"),
        pytest.param([0.0, 1.0, 60.0, 61.0, 62.0], 62.0, 58.0, id="the next window counts from one"),
        pytest.param([0.0, 1.0, 2.0, 60.0], 60.0, 0.0, id="a new window forgives the old"),
    ],
)
def test_blocked_for(failures_at_s: Sequence[float], asked_at_s: float, blocked_s: float) -> None:
    failures = limit()
    for at_s in failures_at_s:
        failures.record("till", at_s)
    assert failures.blocked_for_s("till", asked_at_s) == blocked_s


def test_keys_are_counted_separately() -> None:
    failures = limit(failures_max=1)
    failures.record(7, 0.0)
    assert failures.blocked_for_s(7, 0.0) == 60.0
    assert failures.blocked_for_s(8, 0.0) == 0.0


def test_a_query_counts_nothing() -> None:
    failures = limit(failures_max=1)
    for _ in range(5):
        assert failures.blocked_for_s("till", 0.0) == 0.0


def test_the_oldest_window_is_evicted_beyond_the_bound() -> None:
    failures = limit(failures_max=1, keys_max=2)
    for at_s, key in enumerate(["first", "second", "third"]):
        failures.record(key, float(at_s))
    blocked = [failures.blocked_for_s(key, 2.0) for key in ("first", "second", "third")]
    assert blocked == [0.0, 59.0, 60.0]


def test_a_new_window_moves_its_key_to_the_end() -> None:
    failures = limit(failures_max=1, keys_max=2)
    failures.record("first", 0.0)
    failures.record("second", 1.0)
    failures.record("first", 60.0)
    failures.record("third", 60.0)
    assert failures.blocked_for_s("second", 60.0) == 0.0
    assert failures.blocked_for_s("first", 60.0) == 60.0


@QUICK
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 15), st.booleans()), max_size=40),
    st.integers(1, 4),
    st.integers(1, 30),
)
def test_agrees_with_a_list_of_failures(events: list[tuple[str, int, bool]], failures_max: int, window_s: int) -> None:
    """A simpler model of the rule: keep all failures, and find the start of the window by iterating over them."""
    failures = limit(failures_max, float(window_s), keys_max=3)
    history: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    now_s = 0
    for key, passed_s, fails in events:
        now_s += passed_s
        if fails:
            failures.record(key, float(now_s))
            history[key].append(now_s)
        started_s, count = None, 0
        for at_s in history[key]:
            if started_s is None or at_s >= started_s + window_s:
                started_s, count = at_s, 0
            count += 1
        open_until_s = 0 if started_s is None else started_s + window_s
        expected = max(0, open_until_s - now_s) if count >= failures_max else 0
        assert failures.blocked_for_s(key, float(now_s)) == expected


@QUICK
@given(st.lists(st.integers(), max_size=60), st.integers(1, 5))
def test_holds_no_more_keys_than_allowed(keys: list[int], keys_max: int) -> None:
    failures = limit(failures_max=1, keys_max=keys_max)
    for key in keys:
        failures.record(key, 0.0)
    assert sum(failures.blocked_for_s(key, 0.0) > 0 for key in set(keys)) == min(keys_max, len(set(keys)))
