"""Keeps the embedded Postgres running: one that has ended is started again, a limited number of times."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

import structlog

from pos_server.postgres.embedded import EmbeddedPostgres, StillStarting
from pos_server.postgres.os_user import EmbeddedPostgresError

log = structlog.get_logger(__name__)

CHECK_S = 0.25
RESTARTS_MAX = 20
RESTARTS_WITHIN_S = 60.0


async def keep_running(postgres: EmbeddedPostgres, *, check_s: float = CHECK_S) -> NoReturn:
    """Start the server again whenever it has ended (killed, or out of memory), until canceled.

    Committed payments are recovered. Every process that uses the server may do this; one of them starts it. Raises
    EmbeddedPostgresError if it cannot be started, or if it ends RESTARTS_MAX times within RESTARTS_WITHIN_S.
    """
    restarts_s = deque[float](maxlen=RESTARTS_MAX)
    while True:
        await asyncio.sleep(check_s)
        if postgres.seems_alive():
            continue
        started_s = time.monotonic()
        log.warning("postgres_ended", data_dir=str(postgres.data_dir))
        try:
            was_dead = await asyncio.to_thread(postgres.revive)
        except StillStarting as error:
            log.warning("postgres_recovering", cause=str(error))
            continue
        if not was_dead:
            continue
        log.warning("postgres_restarted", seconds=round(time.monotonic() - started_s, 3))
        restarts_s.append(started_s)
        if len(restarts_s) == RESTARTS_MAX and started_s - restarts_s[0] < RESTARTS_WITHIN_S:
            raise EmbeddedPostgresError(
                f"Postgres in {postgres.data_dir} has ended {RESTARTS_MAX} times within {RESTARTS_WITHIN_S:g} s. "
                f"See {postgres.log_path} for the reason."
            )


@asynccontextmanager
async def kept_running(postgres: EmbeddedPostgres | None, on_failure: Callable[[], object]) -> AsyncIterator[None]:
    """Keep the server running for the duration of the block; None does nothing.

    If that fails, `on_failure` is called, and EmbeddedPostgresError is raised at the end of the block.
    """
    if postgres is None:
        yield
        return
    keeping = asyncio.create_task(keep_running(postgres), name="postgres-keeper")
    keeping.add_done_callback(lambda _: on_failure())
    try:
        yield
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
