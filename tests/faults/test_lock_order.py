"""All transactions lock and insert rows in one order, so that two of them never wait for each other."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from pos_server.core.credentials.device_keys import DeviceId, DeviceKind
from pos_server.core.payments.operations import Cancel
from pos_server.ledger import directory
from pos_server.ledger.database import connect
from pos_server.ledger.sql import QUERIES
from tests.ledger.test_payments import run_batch
from tests.support import EUR, KEYRING, Shop, new_id

pytestmark = pytest.mark.asyncio
GATE = 42
# Each connection waits at the gate before it inserts its second payment.
TRIGGER = f"""
create function wait_at_gate() returns trigger language plpgsql as $$
declare
    inserted int := coalesce(nullif(current_setting('test.inserted', true), ''), '0');
begin
    perform set_config('test.inserted', (inserted + 1)::text, true);
    if inserted = 1 then
        perform pg_advisory_xact_lock_shared({GATE});
    end if;
    return new;
end
$$;
create trigger wait_at_gate before insert on payment for each row execute function wait_at_gate();
"""


@pytest_asyncio.fixture
async def others(dsn: str, admin: asyncpg.Connection) -> AsyncIterator[list[asyncpg.Connection]]:
    """Yield two connections that notice a deadlock at once."""
    await admin.execute(
        "do $$ begin execute format('alter database %I set deadlock_timeout = 10', current_database()); end $$"
    )
    opened = [await connect(dsn, timeout_s=10) for _ in range(2)]
    yield opened
    for each in opened:
        await each.close()


async def wait_for_waiting(connection: asyncpg.Connection, count: int) -> None:
    waiting = "select count(*) from pg_locks where not granted"
    async with asyncio.timeout(15):
        while await connection.fetchval(waiting) < count:  # noqa: ASYNC110 - the rows are the only sign
            await asyncio.sleep(0.01)


async def test_an_activation_locks_the_wallet_before_the_device(
    connection: asyncpg.Connection, shop: Shop, admin: asyncpg.Connection, others: list[asyncpg.Connection]
) -> None:
    paying, activating = others
    device = DeviceId(DeviceKind.WALLET, shop.wallets[0].device.number)
    await directory.issue_activation(connection, device, "code", ttl_s=60)
    async with paying.transaction():
        await paying.execute(QUERIES["lock_wallet"], device.number)
        activation = asyncio.create_task(directory.use_activation(activating, "code", new_id(), KEYRING.current))
        await wait_for_waiting(admin, 1)
        await run_batch(paying, shop.scan(0))
    activated = await activation
    assert activated is not None
    assert activated.generation == 2


async def test_two_batches_insert_the_same_payments_in_one_order(
    shop: Shop, admin: asyncpg.Connection, others: list[asyncpg.Connection]
) -> None:
    terminal = shop.terminals[0].device.number
    cancels = [Cancel(terminal, shop.merchant_id, EUR, new_id(), None, new_id()) for _ in range(2)]
    await admin.execute(TRIGGER)
    await admin.execute("select pg_advisory_lock($1)", GATE)
    tasks = [
        asyncio.create_task(run_batch(own, *batch)) for own, batch in zip(others, (cancels, cancels[::-1]), strict=True)
    ]
    await wait_for_waiting(admin, 2)
    await admin.execute("select pg_advisory_unlock($1)", GATE)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    errors = [type(result) for result in results if isinstance(result, BaseException)]
    assert errors == [asyncpg.UniqueViolationError], "the second batch finds the first one's rows, without a deadlock"
    assert await admin.fetchval("select count(*) from payment where status = 'canceled'") == 2
