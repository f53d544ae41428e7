"""Malformed sessions: the real server keeps serving, logs at most one line each, and leaks neither memory nor files."""

import asyncio
import itertools
import json
import os
import time
from pathlib import Path

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, example, given
from hypothesis import settings as hypothesis_settings

from pos_server.settings import Settings
from tests.end_to_end.server_process import ServerProcess, pos_server, running_server
from tests.faults.malformed import CANARY, End, Login, Session, sessions
from tests.faults.wire import CLOSE, TEXT, Wire, frame, upgrade_request
from tests.support import MASTER_KEYS, Shop, TestDevice, ask, authenticate, build_shop, logged_in, scan_message
from tests.tiers import short_and_long

pytestmark = pytest.mark.asyncio

RSS_GROWTH_BYTES_MAX = 12 * 1024 * 1024
# Enough wallets, because each has ten codes per 30 s.
WALLETS = 60
PAUSE_S = 0.1
# On a busy machine several logins can wait for the database at once.
LATE_LINES_MAX = 10
# Examples of bugs: the first two logged an exception, the third logged two lines.
UNFINISHED_ACTIVATION = b"POST /v1/activations HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"
BAD_TEXT_AND_FRAME = frame(TEXT, b"{") + frame(3, b"")
BAD_TEXT_AND_CLOSE = frame(TEXT, b"\xbb") + frame(CLOSE, b"\x03\xe8")


def open_files(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


def resident_bytes(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def play(session: Session, url: str, till: TestDevice, phone: TestDevice) -> None:
    """Play one session from its first byte to its end."""
    device = phone if b"/v1/wallet" in session.opening else till
    wire = Wire(url)
    try:
        wire.send(session.opening)
        if session.login is not Login.HTTP:
            assert wire.read_head().startswith(b"HTTP/1.1 101 ")
            hello = wire.read_message()
            assert hello is not None
            assert hello["type"] == "hello"
            _log_in(wire, session, device, hello["nonce"])
        for chunk in session.chunks:
            wire.send(chunk)
        if session.end is End.RESET:
            wire.reset()
            return
        if session.end is End.SEND_CLOSE:
            wire.send(frame(CLOSE, b"\x03\xe8"))
        if session.end is not End.CLOSE:
            wire.finish_sending()
            wire.read_to_end()
    finally:
        wire.close()


def _log_in(wire: Wire, session: Session, device: TestDevice, nonce: str) -> None:
    if session.login is Login.NONE:
        return
    half = session.login is Login.HALF
    message = authenticate(device, nonce, **(session.wrong_fields if half else {}))
    wire.send(frame(TEXT, json.dumps(message).encode())[: session.login_cut if half else None])
    if not half:
        ready = wire.read_message()
        assert ready is not None
        assert ready["type"] == "ready"


class HealthyTill:
    """A till that takes payments continuously while `going`."""

    def __init__(self, server: ServerProcess, shop: Shop) -> None:
        self.going = True
        self.approved = 0
        self.longest_s = 0.0
        self._server = server
        self._shop = shop

    async def pay(self) -> None:
        async with logged_in(self._server.url, self._shop.terminals[0]) as till:
            for wallet in itertools.cycle(self._shop.wallets):
                sent_s = time.monotonic()
                assert (await ask(till, scan_message(wallet.code(), amount_minor=1)))["status"] == "approved"
                self.longest_s = max(self.longest_s, time.monotonic() - sent_s)
                self.approved += 1
                if not self.going:
                    return
                await asyncio.sleep(PAUSE_S)


class Watch:
    """Checks of the server process after each session: health, log lines, memory."""

    def __init__(self, server: ServerProcess, loop: asyncio.AbstractEventLoop, warm_up_sessions: int) -> None:
        self.played = 0
        self.warm_up_sessions = warm_up_sessions
        self.warm_resident_bytes = 0
        self._server = server
        self._loop = loop
        self._lines = self.lines()
        self._late = 0
        self._health_wire = Wire(server.url)

    def lines(self) -> int:
        return self._server.log.count("\n")

    def after(self, session: Session) -> None:
        """Check that the server answers and has logged at most one more line."""
        # Twice, because the first answer can come before the server has seen the end of the session.
        for _ in range(2):
            self._health_wire.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            head = self._health_wire.read_head()
            assert head.startswith(b"HTTP/1.1 200 ")
            self._health_wire.read_body(int(head.partition(b"content-length: ")[2].split()[0]))
        asyncio.run_coroutine_threadsafe(self._log_is_read(), self._loop).result()
        lines, self._lines = self.lines() - self._lines, self.lines()
        assert lines <= 1 + self._late, "".join(self._server.log.splitlines(keepends=True)[-lines:])
        # A login is rejected and logged only when the database has answered, which can be late.
        silent = session.login is not Login.HTTP and not lines
        self._late = min(LATE_LINES_MAX, max(0, self._late - max(0, lines - 1)) + silent)
        self.played += 1
        if self.played == self.warm_up_sessions:
            self.warm_resident_bytes = resident_bytes(self._server.process.pid)

    async def _log_is_read(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)

    def close(self) -> None:
        self._health_wire.close()


def play_all(sessions_count: int, server: ServerProcess, till: TestDevice, phone: TestDevice, watch: Watch) -> None:
    # No shrinking: it is slow, and the server keeps state between sessions.
    @hypothesis_settings(
        max_examples=sessions_count,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @example(Session(UNFINISHED_ACTIVATION, Login.HTTP, {}, None, [], End.RESET))
    @example(Session(upgrade_request(), Login.DONE, {}, None, [BAD_TEXT_AND_CLOSE], End.FINISH_SENDING))
    @example(Session(upgrade_request(), Login.DONE, {}, None, [BAD_TEXT_AND_FRAME], End.FINISH_SENDING))
    @given(sessions())
    def each(session: Session) -> None:
        play(session, server.url, till, phone)
        watch.after(session)

    each()


# The till in the other thread can use `random` for a ping while Hypothesis draws.
@short_and_long("sessions_count", 100, 1_000)
@pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning")
# A warning about a long session must not hide the failure that it belongs to.
@pytest.mark.filterwarnings("ignore:Generating overly large repr:hypothesis.errors.HypothesisWarning")
async def test_malformed_sessions_do_no_harm(sessions_count: int, dsn: str, connection: asyncpg.Connection) -> None:
    shop = await build_shop(connection, wallets=WALLETS)
    variables = {"POS_DATABASE_URL": dsn, "POS_MASTER_KEYS": MASTER_KEYS}
    async with running_server(**variables) as server:
        files = open_files(server.process.pid)
        till = HealthyTill(server, shop)
        paying = asyncio.create_task(till.pay())
        watch = Watch(server, asyncio.get_running_loop(), warm_up_sessions=sessions_count // 5)
        try:
            await asyncio.to_thread(play_all, sessions_count, server, shop.terminals[1], shop.wallets[0], watch)
        finally:
            watch.close()
            till.going = False
            await paying
        grown_bytes = resident_bytes(server.process.pid) - watch.warm_resident_bytes
        async with logged_in(server.url, shop.terminals[1]) as newcomer:
            paid = await ask(newcomer, scan_message(shop.wallets[0].code(), amount_minor=1))
        files_after = await asyncio.to_thread(settled_files, server.process.pid, files)
        assert await server.stop() == 0
    assert watch.played >= sessions_count
    assert paid["status"] == "approved"
    assert till.approved > sessions_count / 100
    assert grown_bytes < RSS_GROWTH_BYTES_MAX
    assert files_after <= files + Settings.model_fields["database_pool_max"].default
    for secret in ("Traceback", CANARY, shop.terminals[1].key.hex()):
        assert secret not in server.log, server.log[max(0, server.log.find(secret) - 300) :][:3000]
    assert (await pos_server("audit", POS_DATABASE_URL=dsn)).status == 0
    approved = await connection.fetchval("select count(*) from payment where status = 'approved' and purpose = 'sale'")
    assert approved == till.approved + 1


def settled_files(process: int, files: int) -> int:
    """Return the number of open files after the last connections have closed. There is no event for it."""
    end_s = time.monotonic() + 5
    while open_files(process) > files and time.monotonic() < end_s:
        time.sleep(0.02)
    return open_files(process)
