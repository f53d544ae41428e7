"""Keeps the server's long-lived tasks running: a task that ends is logged, counted and started again after a pause.

    running ── returns, or raises ──► down ── after the pause ──► running

A task stays down for its pause. Pauses double from PAUSE_S_MIN to PAUSE_S_MAX, and start again at PAUSE_S_MIN once
the task has run for STEADY_S. A task that hangs is not detected here: everything that a task waits for has a timeout.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from .ledger.failures import DATABASE_ERRORS, Phase, report

log = structlog.get_logger(__name__)

PAUSE_S_MIN = 0.5
# Short enough for a customer who waits for a notice, long enough for the log: 17,000 tracebacks a day.
PAUSE_S_MAX = 5.0
STEADY_S = 60.0
# A task that ignores its cancellation must not keep the process alive.
STOP_TIMEOUT_S = 10.0


@dataclass(slots=True)
class TaskState:
    """A supervised task.

    - `needed`: the server is not ready while this task is down.
    - `restarts`: how often the task has ended although it should run until the server stops.
    """

    needed: bool
    is_down: bool = False
    restarts: int = 0


class Supervisor:
    """The long-lived tasks of one application, by name. `clock` returns seconds; `sleep` waits for seconds."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.states: dict[str, TaskState] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._clock = clock
        self._sleep = sleep

    def start(
        self, name: str, run: Callable[[], Awaitable[None]], *, needed: bool, pause_s_max: float = PAUSE_S_MAX
    ) -> None:
        """Run `run` in a task until `stop`, and again each time it ends. `name` is a label in logs and metrics."""
        if name in self._tasks:
            raise ValueError(f"the task {name} is running already")
        self.states[name] = TaskState(needed)
        self._tasks[name] = asyncio.create_task(self._keep_running(name, run, pause_s_max), name=name)

    def needed_and_down(self) -> list[str]:
        """Return the names of the tasks without which this server should receive no traffic, and that are down."""
        return [name for name, state in self.states.items() if state.needed and state.is_down]

    async def stop(self) -> None:
        """Cancel all tasks and wait until they have ended, for at most STOP_TIMEOUT_S."""
        for task in self._tasks.values():
            task.cancel()
        if not self._tasks:
            return
        _, hanging = await asyncio.wait(self._tasks.values(), timeout=STOP_TIMEOUT_S)
        if hanging:
            log.error("tasks_do_not_stop", tasks=sorted(task.get_name() for task in hanging))
        self._tasks.clear()

    async def _keep_running(self, name: str, run: Callable[[], Awaitable[None]], pause_s_max: float) -> None:
        state, pause_s = self.states[name], PAUSE_S_MIN
        while True:
            state.is_down = False
            started_s = self._clock()
            await _run_once(name, run)
            if _is_stopping():
                return
            if self._clock() - started_s >= STEADY_S:
                pause_s = PAUSE_S_MIN
            pause_s = min(pause_s, pause_s_max)
            state.is_down = True
            state.restarts += 1
            await self._sleep(pause_s)
            pause_s *= 2


async def _run_once(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run a task to its end and log why it ended. Raises CancelledError only if this task was canceled."""
    try:
        await run()
    except asyncio.CancelledError:
        # One that nobody requested comes from inside, for example from a canceled future.
        if _is_stopping():
            raise
        log.exception("task_failed", task=name)
    except DATABASE_ERRORS as error:
        report(error, Phase.READ, during=name)
    except Exception:
        log.exception("task_failed", task=name)
    else:
        if not _is_stopping():
            log.error("task_failed", task=name, cause="it returned")


def _is_stopping() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
