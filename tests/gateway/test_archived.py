"""Queries and scans of archived payments. The archive moves a whole database, so the test has a separate one."""

from pathlib import Path

import asyncpg
import pytest

from pos_server.core.errors import ErrorCode
from pos_server.ledger import directory, history
from pos_server.server import RunningServer
from tests.gateway.test_history import query_message
from tests.ledger.archived import archive_old, make_old
from tests.ledger.test_payments import run_batch
from tests.support import Shop, ask, logged_in, scan_message

pytestmark = pytest.mark.asyncio


async def test_a_query_recognizes_an_archived_payment(
    server: RunningServer,
    shop: Shop,
    dsn: str,
    connection: asyncpg.Connection,
    admin: asyncpg.Connection,
    tmp_path: Path,
) -> None:
    sale, declined = shop.scan(0), shop.scan(1, amount_minor=99_999)
    await run_batch(connection, sale, declined)
    await make_old(admin)
    await archive_old(admin, tmp_path)
    async with logged_in(server.url, shop.terminals[0]) as till:
        for query in (
            query_message(payment_id=str(sale.payment_id)),
            query_message(reference=sale.reference),
            query_message(payment_id=str(declined.payment_id)),
        ):
            answer = await ask(till, query)
            assert (answer["code"], answer["retryable"]) == ("payment_archived", False)
        # No payment occupies this reference any more.
        assert (await ask(till, query_message(reference=declined.reference)))["code"] == "payment_unknown"
        rescan = await ask(till, scan_message(shop.wallets[2].code(), reference=sale.reference))
        assert (rescan["decline_code"], rescan["paid_by"]) == ("already_paid", str(sale.payment_id))
        # The query finds the payment that occupies the reference, not the declined one.
        assert (await ask(till, query_message(reference=sale.reference)))["code"] == "payment_archived"
        assert (await ask(till, query_message(payment_id=rescan["payment_id"])))["decline_code"] == "already_paid"
        recent = await ask(till, {"type": "payments.recent", "message_id": "r"})
        assert [payment["payment_id"] for payment in recent["payments"]] == [rescan["payment_id"]]
    stranger = await directory.create_merchant(connection, "Other shop", "EUR")
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
        assert await history.find_payment(pool, stranger, sale.payment_id, None) is ErrorCode.PAYMENT_UNKNOWN
