import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from pos_client.device.backoff import Backoff
from pos_client.device.connection import UNREAD_MAX
from pos_client.errors import CodesExhausted
from pos_client.wallet.client import WalletClient
from pos_client.wallet.state import WalletStateFile
from pos_server.core.credentials import payment_code
from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.protocol.server_messages import WalletPaymentResult
from tests.pos_client.fake_server import BOUGHT, DEVICE_KEY, Peer, credentials, fake_server
from tests.pos_client.fake_time import Clock, no_wait

STEP = 56_666_666
START_MS = STEP * 30_000


def digits(step: int, seq: int) -> str:
    return payment_code.make(DEVICE_KEY, 1_000_000_001, 3, step, seq)


def payment_id(number: int) -> str:
    return f"01890000-0000-7000-8000-{number:012d}"


def notice_of(number: int) -> WalletPaymentResult:
    changes = {"payment_id": UUID(payment_id(number)), "balance_minor": number}
    return WalletPaymentResult(**{**BOUGHT, **changes})  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_a_notice_rotates_the_code_and_updates_the_balance() -> None:
    paid = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await paid.wait()
        await peer.send(**BOUGHT)

    async with (
        fake_server(script, server_time_ms=START_MS) as server,
        WalletClient(server.wallet(), backoff=no_wait(), now_ms=Clock(START_MS)) as wallet,
    ):
        assert (await wallet.ready()).balance_minor == 2000
        assert wallet.balance_minor == 2000
        assert wallet.code().digits == digits(STEP, 0)
        paid.set()
        notice = await wallet.notice()
        assert notice.text == "You paid 3.20 EUR to Canteen."
        assert wallet.balance_minor == 1680
        assert wallet.code().digits == digits(STEP, 1)


@pytest.mark.asyncio
async def test_repeated_notices_are_dropped_and_newer_versions_are_not() -> None:
    async def losing(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**BOUGHT)
        await peer.send(**BOUGHT)
        await peer.socket.close(4000)

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**BOUGHT)
        await peer.send(**{**BOUGHT, "version": 2, "text": "It was canceled."})
        await peer.send(**{**BOUGHT, "payment_id": payment_id(2), "text": "You paid again."})

    async with fake_server(losing, script) as server, WalletClient(server.wallet(), backoff=no_wait()) as wallet:
        texts = [(await wallet.notice()).text for _ in range(3)]
    assert texts == ["You paid 3.20 EUR to Canteen.", "It was canceled.", "You paid again."]


@pytest.mark.asyncio
async def test_missed_payments_use_no_codes_and_a_payment_with_the_shown_code_does() -> None:
    shown, read = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await shown.wait()
        for number in range(1, 12):  # decided before the code was shown
            await peer.send(**{**BOUGHT, "payment_id": payment_id(number), "decided_at_ms": START_MS - 60_000})
        await read.wait()
        await peer.send(**{**BOUGHT, "payment_id": payment_id(20), "decided_at_ms": START_MS + 1_000})
        await peer.send(**{**BOUGHT, "payment_id": payment_id(20), "version": 2, "decided_at_ms": START_MS + 2_000})

    async with (
        fake_server(script, server_time_ms=START_MS) as server,
        WalletClient(server.wallet(), backoff=no_wait(), now_ms=Clock(START_MS)) as wallet,
    ):
        await wallet.ready()
        assert wallet.code().digits == digits(STEP, 0)
        shown.set()
        for _ in range(11):
            await wallet.notice()
        assert wallet.code().digits == digits(STEP, 0)
        read.set()
        for _ in range(2):
            await wallet.notice()
            assert wallet.code().digits == digits(STEP, 1)


@pytest.mark.asyncio
async def test_a_code_shown_offline_counts_as_used_once_its_payment_is_reported(tmp_path: Path) -> None:
    connected = asyncio.Event()

    async def script(peer: Peer) -> None:
        await connected.wait()
        await peer.welcome()
        await peer.send(**{**BOUGHT, "decided_at_ms": START_MS + 20_000 + 500})

    clock = Clock(START_MS)  # 20 s behind the server's clock
    async with (
        fake_server(script, server_time_ms=START_MS + 20_000) as server,
        WalletClient(server.wallet(), backoff=no_wait(), now_ms=clock) as wallet,
    ):
        assert wallet.code().digits == digits(STEP, 0)
        connected.set()
        await wallet.notice()
        assert wallet.code().digits == digits(STEP, 1)


@pytest.mark.asyncio
async def test_a_new_process_resumes_after_the_read_notices_and_gets_the_unread_again(tmp_path: Path) -> None:
    state_file = tmp_path / "state"
    since: list[int | None] = []

    async def notifying(peer: Peer) -> None:
        since.append((await peer.welcome())["since_ms"])
        for number in (1, 2):
            await peer.send(**{**BOUGHT, "payment_id": payment_id(number), "decided_at_ms": START_MS + number})
        await peer.socket.close(4100)

    async with fake_server(notifying, server_time_ms=START_MS) as server:
        for notices in (0, 1, 2, 0):
            async with WalletClient(server.wallet(), state_file=state_file, backoff=no_wait()) as wallet:
                await wallet.ready()
                for _ in range(notices):
                    await wallet.notice()
                await asyncio.wait([wallet._task])  # after the close, both notices have arrived
    assert since == [None, START_MS, START_MS, START_MS + 2]


@pytest.mark.asyncio
async def test_the_resume_time_and_the_codes_share_a_file(tmp_path: Path) -> None:
    state_file = tmp_path / "state"

    async def script(peer: Peer) -> None:
        await peer.welcome()

    clock = Clock(START_MS)
    async with fake_server(script, server_time_ms=START_MS) as server:
        async with WalletClient(server.wallet(), state_file=state_file, backoff=no_wait(), now_ms=clock) as wallet:
            await wallet.ready()
            assert wallet.code().digits == digits(STEP, 0)
        next_wallet = WalletClient(server.wallet(), state_file=state_file, now_ms=clock)
    assert next_wallet.code().digits == digits(STEP, 1)
    assert WalletStateFile(state_file).state.since_ms == START_MS


@pytest.mark.asyncio
async def test_unread_notices_are_bounded_and_later_ones_are_requested_again() -> None:
    wallet = WalletClient(credentials(DeviceKind.WALLET))
    for number in range(UNREAD_MAX + 5):
        wallet._on_message(notice_of(number))
    assert wallet.balance_minor == UNREAD_MAX + 4
    assert wallet._resume.is_behind
    balances = [(await wallet.notice()).balance_minor for _ in range(UNREAD_MAX)]
    assert balances == list(range(UNREAD_MAX))


@pytest.mark.asyncio
async def test_codes_follow_the_server_clock_and_its_offset_persists(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()

    state_file = tmp_path / "state"
    clock = Clock(START_MS)
    async with (
        fake_server(script, server_time_ms=START_MS + 300_000) as server,
        WalletClient(server.wallet(), state_file=state_file, backoff=no_wait(), now_ms=clock) as wallet,
    ):
        assert wallet.code().digits == digits(STEP, 0)
        await wallet.ready()
        assert wallet.code().digits == digits(STEP + 10, 0)
    offline = WalletClient(credentials(DeviceKind.WALLET), state_file=state_file, now_ms=clock)
    assert offline.clock_offset_ms == 300_000
    assert offline.code().digits == digits(STEP + 10, 1)


@pytest.mark.asyncio
async def test_next_code_waits_for_the_next_step_when_all_are_used() -> None:
    clock = Clock(START_MS + 4_000)
    wallet = WalletClient(credentials(DeviceKind.WALLET), backoff=Backoff(sleep=clock.sleep), now_ms=clock)
    for number in range(10):
        assert (await wallet.next_code()).digits == digits(STEP, number)
        wallet.used()
    with pytest.raises(CodesExhausted):
        wallet.code()
    assert (await wallet.next_code()).digits == digits(STEP + 1, 0)
    assert clock.now_ms == START_MS + 30_000


def test_codes_need_no_connection() -> None:
    wallet = WalletClient(credentials(DeviceKind.WALLET), now_ms=Clock(START_MS))
    assert wallet.code().digits == digits(STEP, 0)
    assert wallet.balance_minor is None
    assert wallet.problem == "not connected yet"
