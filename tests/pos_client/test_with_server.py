"""The clients against the real server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from pos_client.device.activation import activate
from pos_client.device.credentials import Credentials
from pos_client.errors import ActivationError, ConnectionStopped, OutcomeUnknown, RefundRefused, RequestRefused
from pos_client.terminal.client import TerminalClient
from pos_client.terminal.journal import Journal, JournaledScan
from pos_client.wallet.client import WalletClient
from pos_server.core.credentials.activation import activation_code
from pos_server.core.credentials.device_keys import DeviceId
from pos_server.core.protocol.server_messages import (
    ConfirmationRequired,
    PaymentPending,
    TerminalPaymentResult,
    TerminalRefundResult,
    WalletPaymentResult,
    WalletRefundResult,
)
from pos_server.ledger import directory
from pos_server.server import RunningServer, serving
from tests.support import KEYRING, Shop, new_id, settings


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
    server: RunningServer, shop: Shop, connection: asyncpg.Connection
) -> None:
    terminal = await activated(connection, server, shop.terminals[0].device)
    customer = await activated(connection, server, shop.wallets[0].device)
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
        duplicate = await till.scan(code=wallet.code().digits, amount_minor=1, reference="order-a")
        assert (duplicate.decline_code, duplicate.paid_by) == ("already_paid", paid.payment_id)


@pytest.mark.asyncio
async def test_a_second_client_with_the_same_credentials_takes_over(
    server: RunningServer, shop: Shop, connection: asyncpg.Connection
) -> None:
    customer = await activated(connection, server, shop.wallets[0].device)
    async with WalletClient(customer) as first:
        await first.ready()
        async with WalletClient(customer) as second:
            await second.ready()
            with pytest.raises(ConnectionStopped, match="took over") as stopped:
                await first.notice()
            assert second.stopped is None
    assert stopped.value.close_code == 4101


@pytest.mark.asyncio
async def test_a_replaced_key_stops_with_advice_to_activate_again(
    server: RunningServer, shop: Shop, connection: asyncpg.Connection
) -> None:
    earlier = await activated(connection, server, shop.wallets[0].device)
    await activated(connection, server, shop.wallets[0].device)
    async with WalletClient(earlier) as wallet:
        with pytest.raises(ConnectionStopped, match="activate it again") as stopped:
            await wallet.ready()
    assert stopped.value.close_code == 4100


@pytest.mark.asyncio
async def test_an_offline_wallet_receives_missed_notices(
    server: RunningServer, shop: Shop, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    terminal = await activated(connection, server, shop.terminals[0].device)
    customer = await activated(connection, server, shop.wallets[0].device)
    state_file = tmp_path / "wallet.state"
    async with WalletClient(customer, state_file=state_file) as wallet:
        await wallet.ready()
        shown = wallet.code()
    async with TerminalClient(terminal) as till:
        paid = await till.scan(code=shown.digits, amount_minor=1250, reference="order-a")
    async with WalletClient(customer, state_file=state_file) as wallet:
        notice = await asyncio.wait_for(wallet.notice(), 10)
    assert (paid.status, notice.payment_id) == ("approved", paid.payment_id)


_DECLINES = """
insert into payment (id, fingerprint, terminal_number, merchant_id, wallet_number, reference, amount_minor, currency,
    status, decline_code, version, changed_at)
select gen_random_uuid(), 'x', $1, $2, $3, 'order-' || number, 1, 'EUR', 'declined', 'insufficient_funds', 1,
    from_unix_ms($4::bigint + number / 10)
from generate_series(1, $5) as number"""
MISSED = 1_000


@pytest.mark.asyncio
async def test_a_thousand_missed_results_arrive_once_at_both_sides(
    server: RunningServer, shop: Shop, connection: asyncpg.Connection, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    """Ten at a time have the same time, and new ones come while the pages are read."""
    terminal = await activated(connection, server, shop.terminals[0].device)
    other_terminal = await activated(connection, server, shop.terminals[1].device)
    customer = await activated(connection, server, shop.wallets[0].device)
    state_file, journal = tmp_path / "wallet.state", tmp_path / "till.journal"
    async with (
        WalletClient(customer, state_file=state_file) as wallet,
        TerminalClient(terminal, journal=journal) as till,
    ):
        start_ms = max((await wallet.ready()).server_time_ms, (await till.ready()).server_time_ms)
    parties = terminal.number, shop.merchant_id, customer.number
    await admin.execute(_DECLINES, *parties, start_ms, MISSED)
    async with (
        asyncio.timeout(60),
        WalletClient(customer, state_file=state_file) as wallet,
        TerminalClient(terminal, journal=journal) as till,
        TerminalClient(other_terminal) as other_till,
    ):
        at_wallet = [await wallet.notice()]
        paid = await other_till.scan(code=wallet.code().digits, amount_minor=1, reference="live")
        at_wallet += [await wallet.notice() for _ in range(MISSED)]
        at_till = [await till.result() for _ in range(MISSED)]
        assert not wallet.may_have_missed
        assert (wallet.unread, till.unread) == (0, 0)
    rows = await admin.fetch("select id from payment where wallet_number = $1 and reference like 'order-%'", parties[2])
    missed = sorted(str(row["id"]) for row in rows)
    assert sorted(str(result.payment_id) for result in at_till) == missed
    assert sorted(str(notice.payment_id) for notice in at_wallet) == sorted([*missed, str(paid.payment_id)])


@pytest_asyncio.fixture
async def asking_server(dsn: str) -> AsyncIterator[RunningServer]:
    """Run a server that requires the PIN above 50.00 EUR and gives the customer two seconds."""
    async with serving(settings(pin_free_minor_max=5_000, confirmation_s=2), KEYRING, dsn) as running:
        yield running


@pytest.mark.asyncio
async def test_a_payment_that_needs_the_pin_is_confirmed_and_refunded(
    asking_server: RunningServer, shop: Shop, connection: asyncpg.Connection
) -> None:
    terminal = await activated(connection, asking_server, shop.terminals[0].device)
    other_terminal = await activated(connection, asking_server, shop.terminals[1].device)
    customer = await activated(connection, asking_server, shop.wallets[0].device)
    waiting: list[PaymentPending] = []
    async with (
        TerminalClient(terminal, language="zh") as till,
        TerminalClient(other_terminal) as other_till,
        WalletClient(customer) as wallet,
    ):
        assert not (await wallet.ready()).pin_set
        with pytest.raises(RequestRefused) as weak:
            await wallet.set_pin("1111")
        assert weak.value.code == "pin_too_weak"
        await wallet.set_pin("739104")
        await other_till.ready()

        code = wallet.code().digits
        scanning = asyncio.create_task(
            till.scan(code=code, amount_minor=6_000, reference="order-a", on_pending=waiting.append)
        )
        confirmation = await wallet.next_notice()
        assert isinstance(confirmation, ConfirmationRequired)
        assert wallet.code().digits != code
        queried = await other_till.query(reference="order-a")
        assert isinstance(queried, PaymentPending)
        second_try = await wallet.confirm(confirmation.payment_id, confirmation.version, "000000")
        assert isinstance(second_try, ConfirmationRequired)
        confirmed = await wallet.confirm(second_try.payment_id, second_try.version, "739104")
        assert isinstance(confirmed, WalletPaymentResult)
        paid = await scanning
        assert (paid.status, confirmed.status, wallet.balance_minor) == ("approved", "approved", 4_000)
        assert "60.00" in paid.text
        assert not paid.text.isascii()
        assert waiting[0].wallet_online

        refund = await other_till.refund(paid.payment_id, 1_000)
        assert (refund.refundable_minor, refund.text) == (5_000, "Refunded 10.00 EUR.")
        refund_notice = await wallet.next_notice()
        assert isinstance(refund_notice, WalletRefundResult)
        assert wallet.balance_minor == 5_000
        assert isinstance(await till.result(), TerminalRefundResult)
        with pytest.raises(RefundRefused) as too_much:
            await till.refund(paid.payment_id, 5_001)
        assert too_much.value.code == "refund_exceeds_remaining"

        (latest,) = await till.recent(1)
        page = await wallet.history(5)
        assert latest.payment_id == page.payments[0].payment_id == paid.payment_id
        assert [each.purpose for each in page.payments] == ["sale", "top_up"]


@pytest.mark.asyncio
async def test_a_pending_payment_is_rejected_canceled_or_expires(
    asking_server: RunningServer, shop: Shop, connection: asyncpg.Connection
) -> None:
    terminal = await activated(connection, asking_server, shop.terminals[0].device)
    customer = await activated(connection, asking_server, shop.wallets[0].device)

    async with TerminalClient(terminal) as till, WalletClient(customer) as wallet:
        await wallet.ready()

        async def pending(reference: str) -> tuple[asyncio.Task[TerminalPaymentResult], ConfirmationRequired]:
            scan = till.scan(code=(await wallet.next_code()).digits, amount_minor=1, reference=reference, typed=True)
            scanning = asyncio.create_task(scan)
            confirmation = await wallet.next_notice()
            assert isinstance(confirmation, ConfirmationRequired)
            return scanning, confirmation

        scanning, confirmation = await pending("order-a")
        with pytest.raises(RequestRefused) as no_pin:
            await wallet.confirm(confirmation.payment_id, confirmation.version, "739104")
        assert no_pin.value.code == "pin_not_set"
        rejected = await wallet.reject(confirmation.payment_id)
        assert isinstance(rejected, WalletPaymentResult)
        assert (rejected.status, (await scanning).decline_code) == ("declined", "customer_rejected")

        scanning, _ = await pending("order-b")
        assert (await till.cancel(reference="order-b")).status == "canceled"
        with pytest.raises(OutcomeUnknown):
            await scanning
        assert (await wallet.notice()).status == "canceled"

        scanning, _ = await pending("order-c")
        assert ((await scanning).status, (await wallet.notice()).status) == ("expired", "expired")
        assert till.unread == 0


@pytest.mark.asyncio
async def test_a_cancel_returns_the_money_and_blocks_a_late_scan(
    server: RunningServer, shop: Shop, connection: asyncpg.Connection
) -> None:
    terminal = await activated(connection, server, shop.terminals[0].device)
    customer = await activated(connection, server, shop.wallets[0].device)
    async with TerminalClient(terminal) as till, WalletClient(customer) as wallet:
        await wallet.ready()
        paid = await till.scan(code=wallet.code().digits, amount_minor=1_000, reference="order-a")
        assert [(await till.cancel(payment_id=paid.payment_id)).status for _ in range(2)] == ["canceled"] * 2
        assert [(await wallet.notice()).status for _ in range(2)] == ["approved", "canceled"]
        assert wallet.balance_minor == 10_000

        payment_id = new_id()
        tombstone = await till.cancel(payment_id=payment_id)
        assert (tombstone.status, tombstone.amount_minor) == ("canceled", None)
        late_result = await till.scan(
            code=(await wallet.next_code()).digits, amount_minor=1, reference="order-b", payment_id=payment_id
        )
        assert (late_result.status, late_result.decline_code) == ("declined", "canceled")
        with pytest.raises(RequestRefused) as unknown:
            await till.query(payment_id=new_id())
        assert unknown.value.code == "payment_unknown"
        assert till.unread == 0


@pytest.mark.asyncio
async def test_a_journaled_scan_that_never_arrived_is_canceled_and_charges_nobody(
    server: RunningServer, shop: Shop, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    terminal = await activated(connection, server, shop.terminals[0].device)
    customer = await activated(connection, server, shop.wallets[0].device)
    entry = JournaledScan(
        device=f"{terminal.number} at {terminal.server}",
        payment_id=new_id(),
        reference="order-a",
        amount_minor=1250,
        currency=terminal.currency,
        code=WalletClient(customer).code().digits,
        created_at_ms=0,
    )
    decisions = set()
    for name in ("first", "second"):
        Journal(tmp_path / name, entry.device).add(entry)
        async with TerminalClient(terminal, journal=tmp_path / name) as till:
            (recovered,) = await till.recovered()
        assert isinstance(recovered.outcome, TerminalPaymentResult)
        decisions.add((recovered.outcome.status, recovered.outcome.decided_at_ms))
    assert [status for status, _ in decisions] == ["canceled"]
    async with TerminalClient(terminal) as till:
        late = await till.scan(
            code=entry.code, amount_minor=1250, reference=entry.reference, payment_id=entry.payment_id
        )
    assert (late.status, late.decline_code) == ("declined", "canceled")
    async with WalletClient(customer) as wallet:
        assert (await wallet.ready()).balance_minor == 10_000
