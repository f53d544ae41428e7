"""pos_client's ApiClient against the real server."""

import asyncpg
import pytest

from pos_client import ApiClient, ApiError
from pos_server.cli import operator_acts
from pos_server.core.credentials.api_keys import Role
from pos_server.core.payments.snapshot import WalletStatus
from pos_server.core.rest.admin import ApiKeyCreate, ApiKeyRotate, MerchantChange, MerchantCreate
from pos_server.core.rest.issuer import (
    CashCreate,
    WalletChange,
    WalletCreate,
    WalletDeviceCreate,
    WalletLimitsReplace,
)
from pos_server.core.rest.merchant_payments import CancelByReference, PaymentCreate, PaymentQuery, RefundCreate
from pos_server.core.rest.merchant_reports import ShiftQuery
from pos_server.core.rest.merchant_stores import StoreCreate, TerminalChange, TerminalCreate, TerminalQuery
from pos_server.server import RunningServer
from tests.gateway.test_shifts import opening
from tests.support import Shop, ask, logged_in

pytestmark = pytest.mark.asyncio


async def test_an_operators_day(server: RunningServer, admin: asyncpg.Connection, shop: Shop) -> None:
    key = await operator_acts.new_key(admin, Role.ADMIN, None, "the operator's")
    async with ApiClient(server.url, key) as api:
        body = MerchantCreate(name="Kiosk", currency="EUR", fee_bps=145)
        merchant = await api.create_merchant(body, idempotency_key="kiosk")
        assert await api.create_merchant(body, idempotency_key="kiosk") == merchant
        other = await api.create_merchant(body)
        assert [each.merchant_id async for each in api.list_merchants()] == [
            shop.merchant_id,
            merchant.merchant_id,
            other.merchant_id,
        ]
        changed = await api.change_merchant(merchant.merchant_id, MerchantChange(status="inactive"))
        assert changed == merchant.model_copy(update={"status": "inactive"})
        assert await api.get_merchant(merchant.merchant_id) == changed
        made = await api.create_api_key(ApiKeyCreate(role=Role.MERCHANT, merchant_id=shop.merchant_id, name="shop"))
        rotated = await api.rotate_api_key(made.key_id, ApiKeyRotate(overlap_s=0))
        assert made.key is not None
        assert rotated.key is not None
        async with ApiClient(server.url, made.key) as former, ApiClient(server.url, rotated.key) as current:
            with pytest.raises(ApiError) as ended:
                await former.get_merchant(1)
            with pytest.raises(ApiError) as forbidden:
                await current.get_merchant(1)
        assert [(each.value.status, each.value.code) for each in (ended, forbidden)] == [
            (401, "unauthorized"),
            (403, "role_missing"),
        ]
        assert (await api.revoke_api_key(rotated.key_id)).ends_at is not None
        assert [each.name async for each in api.list_api_keys()] == ["the operator's", "shop", "shop"]
        # The API keys of a tenant share its idempotency keys.
        second = await api.create_api_key(ApiKeyCreate(role=Role.ADMIN, name="second"))
        async with ApiClient(server.url, second.key or "") as colleague:
            assert await colleague.create_merchant(body, idempotency_key="kiosk") == merchant
        with pytest.raises(ApiError) as reused:
            await api.create_merchant(MerchantCreate(name="Cafe", currency="EUR"), idempotency_key="kiosk")
        assert (reused.value.code, reused.value.maybe_done) == ("idempotency_key_reused", False)
        with pytest.raises(ApiError) as wrong:
            await api.create_merchant(MerchantCreate(name="Cafe", currency="EUR", time_zone="Moon/Sea"))
        assert (wrong.value.pointer, len(wrong.value.request_id or "")) == ("/time_zone", 16)


async def test_an_issuers_day(server: RunningServer, admin: asyncpg.Connection, shop: Shop) -> None:
    key = await operator_acts.new_key(admin, Role.ISSUER, None, "the issuer's")
    async with ApiClient(server.url, key) as api:
        wallet = await api.create_wallet(WalletCreate(name="Ada", currency="EUR"), idempotency_key="ada")
        assert await api.create_wallet(WalletCreate(name="Ada", currency="EUR"), idempotency_key="ada") == wallet
        number = wallet.wallet_number
        activation = await api.create_wallet_device(number, WalletDeviceCreate())
        assert (activation.slot, activation.activation_code is None) == (0, False)
        assert [each.status async for each in api.list_wallet_devices(number)] == ["unused"]
        cash = CashCreate(wallet_number=number, merchant_id=shop.merchant_id, amount_minor=2_000)
        top_up = await api.create_top_up(cash, idempotency_key="receipt-1")
        assert await api.create_top_up(cash, idempotency_key="receipt-1") == top_up
        withdrawal = await api.create_withdrawal(cash.model_copy(update={"amount_minor": 500}))
        canceled = await api.cancel_withdrawal(withdrawal.payment_id)
        assert (top_up.status, withdrawal.status, canceled.status) == ("approved", "approved", "canceled")
        assert await api.get_top_up(top_up.payment_id) == top_up
        assert await api.get_withdrawal(withdrawal.payment_id) == canceled
        moved = [(each.kind, each.amount_minor, each.balance_minor) async for each in api.list_wallet_transfers(number)]
        assert moved == [("cancel", 500, 2_000), ("withdrawal", -500, 1_500), ("top_up", 2_000, 2_000)]
        read = await api.get_wallet_limits(number)
        assert read.etag is not None
        replaced = await api.replace_wallet_limits(
            number, WalletLimitsReplace(payment_minor_max=900), if_match=read.etag
        )
        assert (await api.get_wallet_limits(number)).resource == replaced.resource
        assert replaced.resource.payment_minor_max == 900
        with pytest.raises(ApiError) as stale:
            await api.replace_wallet_limits(number, WalletLimitsReplace(), if_match=read.etag)
        assert (stale.value.code, stale.value.maybe_done) == ("precondition_failed", False)
        assert (await api.revoke_wallet_device(number, 0)).status == "revoked"
        await api.cancel_top_up(top_up.payment_id)
        assert not (await api.reset_wallet_pin(number)).pin_set
        closed = await api.change_wallet(number, WalletChange(status=WalletStatus.CLOSED))
        assert (closed.balance_minor, closed.status) == (0, "closed")
        assert await api.get_wallet(number) == closed
        assert [each async for each in api.list_wallets()][-1] == closed


async def test_a_merchants_day(server: RunningServer, admin: asyncpg.Connection, shop: Shop) -> None:
    key = await operator_acts.new_key(admin, Role.MERCHANT, shop.merchant_id, "back office")
    async with ApiClient(server.url, key) as api:
        store = await api.create_store(StoreCreate(name="Station"))
        assert await api.get_store(store.store_id) == store
        assert [each.store_id async for each in api.list_stores()] == [shop.store_id, store.store_id]
        made = await api.create_terminal(TerminalCreate(store_id=store.store_id, name="Till 1"))
        till = await api.get_terminal(made.terminal_number)
        assert [each async for each in api.list_terminals(TerminalQuery(store_id=store.store_id))] == [till]
        again = await api.create_terminal_activation(made.terminal_number)
        assert len({made.activation_code, again.activation_code, None}) == 3

        def order(reference: str) -> PaymentCreate:
            code = shop.wallets[0].code()
            return PaymentCreate(terminal_number=made.terminal_number, code=code, amount_minor=450, reference=reference)

        first = order("order-1")
        payment = await api.create_payment(first, idempotency_key="order-1")
        assert await api.create_payment(first, idempotency_key="order-1") == payment
        refund = await api.create_refund(payment.payment_id, RefundCreate(amount_minor=150))
        assert [each async for each in api.list_refunds(payment.payment_id)] == [refund]
        shown = await api.get_payment(payment.payment_id)
        assert (shown.status, shown.refunded_minor, shown.refundable_minor) == ("approved", 150, 300)
        other = await api.create_payment(order("order-2"))
        assert (await api.cancel_payment(other.payment_id)).status == "canceled"
        assert (await api.cancel_reference(CancelByReference(reference="order-3"))).status == "canceled"
        assert (await api.create_payment(order("order-3"))).status == "declined"
        since = PaymentQuery.model_validate({"from": payment.changed_at, "status": "approved"})
        assert [each.payment_id async for each in api.list_payments(since)] == [payment.payment_id]
        assert (await api.get_balance()).balance_minor == 300
        async with logged_in(server.url, shop.terminals[0]) as socket:
            opened = await ask(socket, opening(opening_cash_minor=10_000))
        [shift] = [each async for each in api.list_shifts(ShiftQuery(terminal_number=opened["terminal_number"]))]
        report = await api.get_shift(shift.shift_id)
        assert (report.report, report.expected_cash_minor) == ("X", 10_000)
        assert [each async for each in api.list_statements()] == []
        with pytest.raises(ApiError) as unsettled:
            await api.get_statement("2026-03-02")
        assert (unsettled.value.status, unsettled.value.code) == (404, "not_found")
        disabled = await api.change_terminal(made.terminal_number, TerminalChange(status="disabled"))
        assert disabled == till.model_copy(update={"status": "disabled"})
        refused = await api.create_payment(order("order-4"))
        assert (refused.status, refused.decline_code) == ("declined", "terminal_disabled")
