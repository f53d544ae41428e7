"""A refund that another server commits between the two statements of a load."""

from typing import Any

import asyncpg
import pytest

from pos_server.core.payments.operations import CreateRefund, Refunded
from tests.ledger.test_payments import run_batch
from tests.support import LEDGER_CONFLICT, Shop, new_id

pytestmark = pytest.mark.asyncio


class Interrupted:
    """A connection that lets another server commit its batch after the first statement."""

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

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


async def test_a_refund_is_never_loaded_with_an_older_payment(connection: asyncpg.Connection, shop: Shop) -> None:
    sale = shop.scan()
    await run_batch(connection, sale)
    refund_request = CreateRefund(new_id(), sale.payment_id, shop.merchant_id, None, 400)
    interrupted: Any = Interrupted(connection, refund_request)

    # Either the refund is not loaded, and the rows show that it was made meanwhile …
    with pytest.raises(LEDGER_CONFLICT):
        await run_batch(interrupted, refund_request)
    # … or it is loaded together with its effects on the payment and the wallet.
    (outcome,) = await run_batch(connection, refund_request)
    assert isinstance(outcome, Refunded)
    assert outcome.replayed
    assert (outcome.payment.version, outcome.payment.refunded_minor) == (2, 400)
    assert outcome.wallet.balance_minor == 9_400
