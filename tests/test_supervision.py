"""Supervised tasks with a clock that a test sets: when they run, what is logged, and how they stop."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from pos_server import supervision
from pos_server.supervision import PAUSE_S_MAX, PAUSE_S_MIN, STEADY_S, Supervisor

pytestmark = pytest.mark.asyncio


class Time:
    """A clock that moves only in `sleep`, and the pauses that were slept. `blocks` makes every sleep endless."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.pauses_s: list[float] = []
        self.blocks = False

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        if self.blocks:
            await asyncio.Event().wait()
        self.now_s += seconds
        await asyncio.sleep(0)


class Work:
    """A task whose first runs end as listed, each after it has run for `lasts_s`; the next one runs until canceled."""

    def __init__(self, time: Time, *ends: BaseException | None, lasts_s: float = 0) -> None:
        self.runs = 0
        self.lasting = asyncio.Event()
        self._time = time
        self._ends = list(ends)
        self._lasts_s = lasts_s

    async def run(self) -> None:
        self.runs += 1
        if not self._ends:
            self.lasting.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        self._time.now_s += self._lasts_s
        end = self._ends.pop(0)
        if end is not None:
            raise end


def supervised(run: Callable[[], Awaitable[None]], time: Time, **options: Any) -> Supervisor:
    supervisor = Supervisor(clock=time.clock, sleep=time.sleep)
    supervisor.start("work", run, **({"needed": True} | options))
    return supervisor


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the supervisor has no event for tests
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("end", "event"),
    [
        (RuntimeError("a bug"), {"event": "task_failed", "log_level": "error", "exc_info": True, "task": "work"}),
        (
            asyncpg.InternalClientError("a bug of asyncpg"),
            {
                "event": "database_away",
                "log_level": "warning",
                "during": "work",
                "cause": "InternalClientError",
                "code": "InternalClientError",
            },
        ),
        (
            asyncio.CancelledError("of a future inside"),
            {"event": "task_failed", "log_level": "error", "exc_info": True, "task": "work"},
        ),
        (None, {"event": "task_failed", "log_level": "error", "task": "work", "cause": "it returned"}),
        (
            OSError("no route to host"),
            {
                "event": "database_away",
                "log_level": "warning",
                "during": "work",
                "cause": "OSError",
                "code": "OSError",
            },
        ),
    ],
)
async def test_a_task_that_ends_is_logged_counted_and_runs_again(
    end: BaseException | None, event: dict[str, object]
) -> None:
    time = Time()
    work = Work(time, end)
    with capture_logs() as logs:
        supervisor = supervised(work.run, time)
        await until(work.lasting.is_set)
    assert logs == [event]
    assert (work.runs, time.pauses_s) == (2, [PAUSE_S_MIN])
    assert (supervisor.states["work"].restarts, supervisor.states["work"].is_down) == (1, False)
    await supervisor.stop()
    assert work.runs == 2


async def test_pauses_double_up_to_their_bound() -> None:
    time = Time()
    work = Work(time, *[RuntimeError()] * 7)
    with capture_logs():
        supervisor = supervised(work.run, time)
        await until(work.lasting.is_set)
        await supervisor.stop()
    assert time.pauses_s == [0.5, 1, 2, 4, PAUSE_S_MAX, PAUSE_S_MAX, PAUSE_S_MAX]


async def test_a_task_can_have_a_shorter_bound() -> None:
    time = Time()
    work = Work(time, *[RuntimeError()] * 3)
    with capture_logs():
        supervisor = supervised(work.run, time, pause_s_max=0.75)
        await until(work.lasting.is_set)
        await supervisor.stop()
    assert time.pauses_s == [0.5, 0.75, 0.75]


@pytest.mark.parametrize(("lasts_s", "pauses_s"), [(STEADY_S - 1, [0.5, 1, 2]), (STEADY_S, [0.5, 0.5, 0.5])])
async def test_a_task_that_ran_well_starts_with_the_shortest_pause(lasts_s: float, pauses_s: list[float]) -> None:
    time = Time()
    work = Work(time, *[RuntimeError()] * 3, lasts_s=lasts_s)
    with capture_logs():
        supervisor = supervised(work.run, time)
        await until(work.lasting.is_set)
        await supervisor.stop()
    assert time.pauses_s == pauses_s


@pytest.mark.parametrize(("needed", "named"), [(True, ["work"]), (False, [])])
async def test_a_needed_task_is_named_while_it_is_down(needed: bool, named: list[str]) -> None:
    time = Time()
    time.blocks = True
    with capture_logs():
        supervisor = supervised(Work(time, RuntimeError()).run, time, needed=needed)
        assert supervisor.needed_and_down() == []
        await until(lambda: supervisor.states["work"].is_down)
    assert supervisor.needed_and_down() == named
    await supervisor.stop()


async def test_a_failing_task_does_not_affect_another_one() -> None:
    time = Time()
    failing, other = Work(time, *[RuntimeError()] * 3), Work(time)
    with capture_logs():
        supervisor = supervised(failing.run, time)
        supervisor.start("other", other.run, needed=True)
        await until(failing.lasting.is_set)
    assert (failing.runs, other.runs) == (4, 1)
    assert supervisor.states["other"].restarts == 0
    await supervisor.stop()


async def test_a_stop_is_no_failure() -> None:
    time = Time()
    work = Work(time)
    with capture_logs() as logs:
        supervisor = supervised(work.run, time)
        await until(work.lasting.is_set)
        await supervisor.stop()
    assert logs == []
    assert (work.runs, supervisor.states["work"].restarts, supervisor.states["work"].is_down) == (1, 0, False)


async def test_a_stop_during_a_pause_ends_the_pause() -> None:
    time = Time()
    time.blocks = True
    work = Work(time, RuntimeError())
    with capture_logs():
        supervisor = supervised(work.run, time)
        await until(lambda: time.pauses_s)
        await supervisor.stop()
    assert work.runs == 1


async def test_a_stop_before_the_first_run_runs_nothing() -> None:
    time = Time()
    work = Work(time)
    supervisor = supervised(work.run, time)
    await supervisor.stop()
    assert work.runs == 0


@pytest.mark.parametrize("error", [RuntimeError("a bug"), None])
async def test_a_task_that_ends_otherwise_than_canceled_during_a_stop_stays_stopped(error: Exception | None) -> None:
    time, runs = Time(), 0

    async def ends_badly() -> None:
        nonlocal runs
        runs += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if error is not None:
                raise error from None

    with capture_logs() as logs:
        supervisor = supervised(ends_badly, time)
        await until(lambda: runs)
        await supervisor.stop()
    assert [log["event"] for log in logs] == (["task_failed"] if error else [])
    assert (runs, time.pauses_s) == (1, [])


async def test_a_task_that_ignores_its_cancellation_does_not_hold_up_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "STOP_TIMEOUT_S", 0.01)
    time, released, ended = Time(), asyncio.Event(), asyncio.Event()

    async def hangs() -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        ended.set()

    with capture_logs() as logs:
        supervisor = supervised(hangs, time)
        await asyncio.sleep(0)
        await supervisor.stop()
        released.set()
        await ended.wait()
    assert [(log["event"], log["tasks"]) for log in logs] == [("tasks_do_not_stop", ["work"])]


async def test_a_name_is_used_once() -> None:
    time = Time()
    supervisor = supervised(Work(time).run, time)
    with pytest.raises(ValueError, match="work"):
        supervisor.start("work", Work(time).run, needed=True)
    await supervisor.stop()
