"""The clients against the real server."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from pos_client.activation import activate
from pos_client.credentials import Credentials
from pos_client.errors import ActivationError, ConnectionStopped
from pos_client.journal import Journal, JournaledScan
from pos_client.terminal import TerminalClient
from pos_client.wallet import WalletClient
from pos_server.core.activation import activation_code
from pos_server.core.device_keys import DeviceId
from pos_server.core.messages import TerminalPaymentResult
from pos_server.ledger import directory
from pos_server.server import RunningServer
from tests.support import Town, new_id


async def activated(connection: asyncpg.Connection, server: RunningServer, device: DeviceId) -> Credentials:
    code = activation_code(new_id().bytes[:10])
    await directory.issue_activation(connection, device, code, ttl_s=60)
    request_id = new_id()
    credentials = await activate(server.url, code.lower(), request_id=request_id)
    assert await activate(server.url, code, request_id=request_id) == credentials
    with pytest.raises(ActivationError) as error:
        await activate(server.url, code, request_id=new_id())
    assert error.value.code == "activation_unknown"
    return credentials


@pytest.mark.asyncio
async def test_a_sale_from_activation_to_notice(
    server: RunningServer, town: Town, connection: asyncpg.Connection
) -> None:
    terminal = await activated(connection, server, town.terminals[0].device)
    customer = await activated(connection, server, town.wallets[0].device)
    async with TerminalClient(terminal) as till, WalletClient(customer) as wallet:
        assert (await till.ready()).merchant_name == "Corner Canteen"
        assert (await wallet.ready()).balance_minor == 10_000
        assert abs(wallet.clock_offset_ms) < 1_000

        shown = wallet.code()
        paid = await till.scan(code=shown.digits, amount_minor=1250, reference="order-a")
        assert (paid.status, paid.amount_minor) == ("approved", 1250)
        assert (await wallet.notice()).payment_id == paid.payment_id
        assert wallet.balance_minor == 8_750

        repeated = await till.scan(
            code=shown.digits, amount_minor=1250, reference="order-a", payment_id=paid.payment_id
        )
        assert repeated.decided_at_ms == paid.decided_at_ms

        spent = await till.scan(code=shown.digits, amount_minor=1, reference="order-b")
        assert (spent.status, spent.decline_code) == ("declined", "code_used")
        fresh = await till.scan(code=wallet.code().digits, amount_minor=10_000, reference="order-b")
        assert fresh.decline_code == "insufficient_funds"
        again = await till.scan(code=wallet.code().digits, amount_minor=1, reference="order-a")
        assert (again.decline_code, again.paid_by) == ("already_paid", paid.payment_id)


@pytest.mark.asyncio
async def test_a_second_program_with_the_same_credentials_takes_over(
    server: RunningServer, town: Town, connection: asyncpg.Connection
) -> None:
    customer = await activated(connection, server, town.wallets[0].device)
    async with WalletClient(customer) as first:
        await first.ready()
        async with WalletClient(customer) as second:
            await second.ready()
            with pytest.raises(ConnectionStopped, match="took over") as stopped:
                await first.notice()
            assert second.stopped is None
    assert stopped.value.close_code == 4101


@pytest.mark.asyncio
async def test_a_revoked_key_is_told_to_activate_again(
    server: RunningServer, town: Town, connection: asyncpg.Connection
) -> None:
    earlier = await activated(connection, server, town.wallets[0].device)
    await activated(connection, server, town.wallets[0].device)
    async with WalletClient(earlier) as wallet:
        with pytest.raises(ConnectionStopped, match="activate it again") as stopped:
            await wallet.ready()
    assert stopped.value.close_code == 4100


@pytest.mark.asyncio
async def test_devices_that_were_off_hear_what_they_missed(
    server: RunningServer, town: Town, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    terminal = await activated(connection, server, town.terminals[0].device)
    customer = await activated(connection, server, town.wallets[0].device)
    state_file = tmp_path / "wallet.state"
    async with WalletClient(customer, state_file=state_file) as wallet:
        await wallet.ready()
        shown = wallet.code()
    async with TerminalClient(terminal) as till:
        paid = await till.scan(code=shown.digits, amount_minor=1250, reference="order-a")
    async with WalletClient(customer, state_file=state_file) as wallet:
        notice = await asyncio.wait_for(wallet.notice(), 10)
    assert (paid.status, notice.payment_id) == ("approved", paid.payment_id)


@pytest.mark.asyncio
async def test_a_journaled_scan_is_decided_once_however_often_it_is_recovered(
    server: RunningServer, town: Town, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    terminal = await activated(connection, server, town.terminals[0].device)
    customer = await activated(connection, server, town.wallets[0].device)
    entry = JournaledScan(
        device=f"{terminal.number} at {terminal.server}",
        payment_id=new_id(),
        reference="order-a",
        amount_minor=1250,
        currency=terminal.currency,
        code=WalletClient(customer).code().digits,
        created_at_ms=0,
    )
    decided = set()
    for name in ("first", "second"):
        Journal(tmp_path / name, entry.device).add(entry)
        async with TerminalClient(terminal, journal=tmp_path / name) as till:
            (recovered,) = await till.recovered()
        assert isinstance(recovered.outcome, TerminalPaymentResult)
        decided.add((recovered.outcome.status, recovered.outcome.decided_at_ms))
    assert [status for status, _ in decided] == ["approved"]
    async with WalletClient(customer) as wallet:
        assert (await wallet.ready()).balance_minor == 8_750
