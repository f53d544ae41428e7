"""A wallet's own limits: loaded with the wallet and not changed by payments."""

import asyncpg
import pytest

from pos_server.core.payments.operations import Decided
from pos_server.core.payments.snapshot import OwnLimits
from pos_server.ledger import wallets
from pos_server.ledger.payments import load_snapshot
from tests.copies import replace
from tests.ledger.test_payments import run_batch
from tests.support import Shop

pytestmark = pytest.mark.asyncio
LIMITS = OwnLimits(1, 2, 3, 4, 5, 6, 7)


async def test_limits_are_loaded_with_the_wallet(connection: asyncpg.Connection, shop: Shop) -> None:
    first, second, third = (device.device.number for device in shop.wallets)
    await wallets.set_own_limits(connection, first, LIMITS)
    await wallets.set_own_limits(connection, second, OwnLimits(day_minor_max=0))
    snapshot = await load_snapshot(connection, [shop.scan(), shop.scan(1), shop.scan(2)])
    assert {number: snapshot.wallets[number].limits for number in (first, second, third)} == {
        first: LIMITS,
        second: OwnLimits(day_minor_max=0),
        third: None,
    }
    assert await wallets.find_own_limits(connection, first) == LIMITS
    assert await wallets.find_own_limits(connection, third) == OwnLimits()
    assert await wallets.find_own_limits(connection, 1_999_999_999) is None


async def test_a_payment_does_not_change_them(connection: asyncpg.Connection, shop: Shop) -> None:
    limits = OwnLimits(payment_minor_max=5_000)
    await wallets.set_own_limits(connection, shop.wallets[0].device.number, limits)
    (paid,) = await run_batch(connection, shop.scan())
    assert isinstance(paid, Decided)
    assert paid.wallet is not None
    assert (paid.payment.status, paid.wallet.limits) == ("approved", limits)
    assert await wallets.find_own_limits(connection, shop.wallets[0].device.number) == limits


async def test_new_limits_apply_to_a_concurrent_payment(connection: asyncpg.Connection, shop: Shop) -> None:
    number = shop.wallets[0].device.number
    before = (await load_snapshot(connection, [shop.scan()])).wallets[number]
    await wallets.set_own_limits(connection, number, LIMITS)
    after = (await load_snapshot(connection, [shop.scan()])).wallets[number]
    assert after == replace(before, limits=LIMITS, version=before.version + 1)


@pytest.mark.parametrize("name", OwnLimits.__struct_fields__)
async def test_the_schema_rejects_a_negative_limit(name: str, connection: asyncpg.Connection, shop: Shop) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await wallets.set_own_limits(connection, shop.wallets[0].device.number, OwnLimits(**{name: -1}))
