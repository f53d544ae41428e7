from uuid import UUID

from pos_client.device.resume import REPLAYED_AFTER_S, VERSIONS_MAX, Resume


def payment_id(number: int) -> UUID:
    return UUID(int=number)


def test_without_a_replay_the_server_time_counts_at_once() -> None:
    resume = Resume()
    assert resume.since_ms is None
    resume.on_ready(1_000, resumed=True)
    assert (resume.since_ms, resume.may_have_missed) == (1_000, False)


def test_with_a_replay_the_server_time_counts_once_it_must_have_arrived() -> None:
    resume = Resume(since_ms=1_000)
    resume.on_ready(5_000, resumed=True)
    resume.on_lost(REPLAYED_AFTER_S - 1)
    assert resume.since_ms == 1_000
    resume.on_ready(6_000, resumed=True)
    resume.on_lost(REPLAYED_AFTER_S)
    assert resume.since_ms == 6_000
    resume.on_lost(REPLAYED_AFTER_S)
    assert resume.since_ms == 6_000


def test_a_gap_too_large_is_reported_and_not_requested_again() -> None:
    resume = Resume(since_ms=1_000)
    resume.on_ready(5_000, resumed=False)
    assert (resume.since_ms, resume.may_have_missed) == (5_000, True)
    resume.on_ready(6_000, resumed=True)
    assert resume.may_have_missed


def test_results_never_move_the_position_back() -> None:
    resume = Resume(since_ms=1_000)
    resume.on_result(payment_id(1), 1, 3_000)
    resume.on_result(payment_id(2), 1, 2_000)
    assert resume.since_ms == 3_000


def test_a_version_is_new_once_and_an_older_one_never() -> None:
    resume = Resume(versions={payment_id(9): 2})
    answers = [resume.on_result(payment_id(1), version, 0) for version in (1, 1, 3, 2, 3)]
    assert answers == [True, False, True, False, False]
    assert not resume.on_result(payment_id(9), 2, 0)
    assert resume.on_result(payment_id(9), 3, 0)


def test_the_number_of_versions_is_bounded_and_the_latest_stay() -> None:
    resume = Resume()
    resume.on_result(payment_id(0), 1, 0)
    resume.on_result(payment_id(1), 1, 0)
    resume.on_result(payment_id(0), 2, 0)
    for number in range(2, VERSIONS_MAX + 1):
        resume.on_result(payment_id(number), 1, 0)
    assert not resume.on_result(payment_id(0), 2, 0)
    assert resume.on_result(payment_id(1), 1, 0)
