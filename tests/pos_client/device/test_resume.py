from uuid import UUID

from pos_client.device.resume import CURSOR_AGE_MS, VERSIONS_MAX, Resume


def payment_id(number: int) -> UUID:
    return UUID(int=number)


def test_without_a_replay_the_server_time_counts_at_once() -> None:
    resume = Resume()
    assert resume.since_ms is None
    resume.on_ready(1_000, resumed=True)
    assert (resume.since_ms, resume.may_have_missed) == (1_000, False)


def test_the_time_of_a_replay_counts_once_it_has_arrived() -> None:
    resume = Resume(since_ms=1_000)
    resume.on_ready(5_000, resumed=True)
    assert resume.since_ms == 1_000
    resume.on_result(payment_id(1), 1, 1_500)
    assert resume.since_ms == 1_500
    resume.on_replayed(5_000, None)
    assert (resume.since_ms, resume.is_behind) == (5_000, False)


def test_pages_move_the_position_and_later_results_do_not_until_the_last_page() -> None:
    resume = Resume(since_ms=1_000)
    resume.on_ready(9_000, resumed=False)
    assert (resume.is_behind, resume.cursor) == (True, None)
    resume.on_request()
    resume.on_result(payment_id(1), 1, 2_000)
    resume.on_result(payment_id(2), 1, 9_500)
    assert resume.since_ms == 1_000
    resume.on_replayed(2_000, "next")
    assert (resume.since_ms, resume.is_behind, resume.cursor) == (2_000, True, "next")
    resume.on_request()
    resume.on_replayed(9_300, None)
    assert (resume.since_ms, resume.is_behind, resume.cursor) == (9_500, False, None)


def test_a_cursor_outlives_its_connection_unless_its_page_is_recent() -> None:
    resume = Resume(since_ms=1_000)
    resume.on_ready(CURSOR_AGE_MS + 3_000, resumed=False)
    resume.on_replayed(2_000, "next")
    resume.on_ready(CURSOR_AGE_MS + 4_000, resumed=False)
    assert resume.cursor == "next"
    resume.fall_behind()
    assert resume.cursor is None


def test_after_a_lost_connection_pages_start_again_from_the_last_one() -> None:
    resume = Resume(since_ms=1_000)
    resume.on_ready(9_000, resumed=False)
    resume.on_request()
    resume.on_result(payment_id(1), 1, 9_500)
    resume.on_replayed(2_000, "next")
    resume.on_request()
    resume.on_ready(10_000, resumed=False)
    assert (resume.since_ms, resume.is_behind, resume.cursor) == (2_000, True, None)
    resume.on_ready(11_000, resumed=True)
    resume.on_replayed(11_000, None)
    assert (resume.since_ms, resume.is_behind) == (11_000, False)


def test_a_dropped_result_is_requested_again() -> None:
    resume = Resume(since_ms=1_000)
    resume.on_ready(2_000, resumed=True)
    resume.on_result(payment_id(1), 1, 1_500)
    resume.fall_behind()
    resume.on_replayed(2_000, None)  # not everything before it was taken
    assert (resume.since_ms, resume.is_behind) == (1_500, True)
    resume.on_request()
    resume.on_replayed(3_000, None)
    assert (resume.since_ms, resume.is_behind) == (3_000, False)


def test_a_gap_that_cannot_be_replayed_is_reported_and_not_requested_again() -> None:
    resume = Resume(since_ms=1_000)
    resume.on_ready(5_000, resumed=False)
    resume.give_up()
    assert (resume.since_ms, resume.may_have_missed, resume.is_behind) == (5_000, True, False)
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


def test_the_number_of_versions_is_bounded_and_those_of_the_latest_changes_stay() -> None:
    resume = Resume()
    resume.on_result(payment_id(0), 1, 10**9)  # a result of today, before a replay of older ones
    resume.on_result(payment_id(1), 1, 5)
    resume.on_result(payment_id(1), 2, 10**9)
    for number in range(2, VERSIONS_MAX + 2):
        resume.on_result(payment_id(number), 1, number)
    assert not resume.on_result(payment_id(0), 1, 10**9)
    assert not resume.on_result(payment_id(1), 2, 10**9)
    assert resume.on_result(payment_id(2), 1, 2)
