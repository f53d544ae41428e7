"""A refund that another server commits between the two statements of a load."""

from typing import Any

import asyncpg
import pytest

from pos_server.core.payments.operations import CreateRefund, Refunded
from pos_server.ledger.payments import LEDGER_CONFLICT
from tests.ledger.test_payments import run_batch
from tests.support import Shop, new_id

pytestmark = pytest.mark.asyncio


class Interrupted:
    """A connection on which the other server commits its batch after the first statement."""

    def __init__(self, connection: asyncpg.Connection, other: CreateRefund) -> None:
        self._connection = connection
        self._others = [other]

    async def fetch(self, *args: Any) -> list[asyncpg.Record]:
        rows = await self._connection.fetch(*args)
        if self._others:
            await run_batch(self._connection, self._others.pop())
        return rows

    async def fetchval(self, *args: Any) -> Any:
        return await self._connection.fetchval(*args)


async def test_the_same_refund_at_two_servers_is_never_told_with_an_older_payment(
    connection: asyncpg.Connection, shop: Shop
) -> None:
    sale = shop.scan()
    await run_batch(connection, sale)
    wish = CreateRefund(new_id(), sale.payment_id, shop.merchant_id, None, 400)
    interrupted: Any = Interrupted(connection, wish)

    # Either it is not found, and the rows say that it was made meanwhile …
    with pytest.raises(LEDGER_CONFLICT):
        await run_batch(interrupted, wish)
    # … or it is found, and so is what it did to its payment and wallet.
    (outcome,) = await run_batch(connection, wish)
    assert isinstance(outcome, Refunded)
    assert outcome.replayed
    assert (outcome.payment.version, outcome.payment.refunded_minor) == (2, 400)
    assert outcome.wallet.balance_minor == 9_400
