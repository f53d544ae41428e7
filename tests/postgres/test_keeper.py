"""The keeper starts an embedded Postgres again that has ended, a limited number of times."""

import asyncio
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from pos_server.postgres.embedded import EmbeddedPostgres, StillStarting
from pos_server.postgres.keeper import RESTARTS_MAX, keep_running, kept_running
from pos_server.postgres.os_user import EmbeddedPostgresError
from tests.postgres.processes import alive, kill_server, on_linux, query


class FakePostgres(EmbeddedPostgres):
    """A Postgres that is dead at every check, with the outcomes of its next starts."""

    def __init__(self, outcomes: list[bool | Exception]) -> None:
        super().__init__(Path("/nowhere"))
        self.outcomes = outcomes
        self.starts = 0

    def seems_alive(self) -> bool:
        return False

    def revive(self) -> bool:
        self.starts += 1
        outcome = self.outcomes.pop(0) if self.outcomes else True
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.mark.asyncio
async def test_a_postgres_that_ends_again_and_again_is_given_up() -> None:
    postgres = FakePostgres([])
    with (
        capture_logs() as logs,
        pytest.raises(EmbeddedPostgresError, match=r"ended 20 times within 60 s\. See /nowhere"),
    ):
        await keep_running(postgres, check_s=0)
    assert postgres.starts == RESTARTS_MAX
    assert [log["event"] for log in logs] == ["postgres_ended", "postgres_restarted"] * RESTARTS_MAX


@pytest.mark.asyncio
async def test_a_long_recovery_and_a_start_by_another_process_are_no_failures() -> None:
    postgres = FakePostgres([StillStarting("recovering"), False, EmbeddedPostgresError("no space left")])
    with capture_logs(), pytest.raises(EmbeddedPostgresError, match="no space left"):
        await keep_running(postgres, check_s=0)
    assert postgres.starts == 3


@pytest.mark.asyncio
async def test_a_failure_ends_the_block_and_is_raised_after_it() -> None:
    failed = asyncio.Event()
    with capture_logs(), pytest.raises(EmbeddedPostgresError, match="no space left"):
        async with kept_running(FakePostgres([EmbeddedPostgresError("no space left")]), failed.set):
            await failed.wait()


@pytest.mark.asyncio
async def test_without_an_embedded_postgres_nothing_is_kept() -> None:
    async with kept_running(None, lambda: None):
        pass


@pytest.mark.postgres
@pytest.mark.parametrize("folder", ["data", "long" * 30], ids=["short path", "long path"])
def test_a_killed_server_is_started_once_at_the_same_address(folder: str, data_dir: Path) -> None:
    users = [EmbeddedPostgres(data_dir / folder) for _ in range(3)]
    dsns = {user.start() for user in users}
    try:
        (dsn,) = dsns
        for _ in range(2):
            query(dsn, "create table if not exists sale (amount_minor bigint)")
            kill_server(data_dir / folder)
            with ThreadPoolExecutor() as threads:
                revived = list(threads.map(EmbeddedPostgres.revive, users))
            assert sorted(revived) == [False, False, True]
            assert all(user.seems_alive() for user in users)
            query(dsn, "insert into sale values (1)")
        assert query(dsn, "select count(*) from sale") == 2
    finally:
        for user in users:
            user.stop()
    assert not users[0].seems_alive()


@on_linux
@pytest.mark.postgres
@pytest.mark.asyncio
async def test_a_long_statement_of_a_dead_server_does_not_delay_the_next_one(data_dir: Path) -> None:
    """Regression: a statement that computes does not notice the death, and one of the audit can take minutes."""
    user = EmbeddedPostgres(data_dir)
    dsn = await asyncio.to_thread(user.start)
    try:
        orphan, witness = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
        computing = asyncio.create_task(orphan.execute("do $$ begin loop perform 1; end loop; end $$"))
        busy = "select count(*) from pg_stat_activity where pid = $1 and state = 'active'"
        while not await witness.fetchval(busy, orphan.get_server_pid()):
            pass
        await asyncio.to_thread(kill_server, data_dir)
        assert alive(orphan.get_server_pid())
        assert await asyncio.to_thread(user.revive)
        with pytest.raises(asyncpg.PostgresConnectionError):
            await computing
        assert not alive(orphan.get_server_pid())
        witness.terminate()
    finally:
        await asyncio.to_thread(user.stop)


@pytest.mark.postgres
def test_a_reader_of_the_lock_is_no_orphan(data_dir: Path) -> None:
    """A backup may read all files."""
    user = EmbeddedPostgres(data_dir)
    user.start()
    try:
        with (
            open(data_dir / "server.lock", "rb") as lock,
            subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, pass_fds=[lock.fileno()]) as reader,
        ):
            kill_server(data_dir)
            assert user.revive()
            assert reader.poll() is None
            reader.communicate()
    finally:
        user.stop()
