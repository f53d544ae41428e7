"""A merchant's list of payments: merged from its terminals, it has the same order as a sort of all payments."""

import asyncpg
import pytest

from pos_server.ledger import directory
from pos_server.ledger.reports import PageCursor, PaymentFilter, list_payments
from tests.support import EUR, Shop

pytestmark = pytest.mark.asyncio

# Few different times, so that many payments share one. In each case the first terminals have most of the payments.
_PAYMENTS = """
insert into payment (id, fingerprint, merchant_id, terminal_number, reference, amount_minor, currency, status,
    decline_code, version, changed_at, purpose)
select gen_random_uuid(), 'x', $1, ($2::bigint[])[1 + floor(power(random(), $3) * cardinality($2::bigint[]))],
    'o-' || i,
    5, 'EUR', 'declined', 'code_expired', 1, date_trunc('day', now()) + floor(random() * $4) * interval '1 ms', 'sale'
from generate_series(1, $5) i
"""


async def all_pages(
    connection: asyncpg.Connection, merchant_id: int, payment_filter: PaymentFilter, limit: int
) -> list[str]:
    found: list[str] = []
    after: PageCursor | None = None
    while page := await list_payments(connection, merchant_id, payment_filter, after, limit):
        found += [payment.reference for payment, _ in page]
        after = page[-1][1]
    return found


@pytest.mark.parametrize("limit", [1, 3, 51])
@pytest.mark.parametrize(
    ("terminals", "skew", "moments"),
    [(1, 1, 50), (4, 1, 50), (4, 6, 1_000_000), (60, 1, 1_000_000), (60, 12, 200), (60, 40, 1_000_000)],
)
async def test_pages_are_in_the_order_of_all_payments(
    admin: asyncpg.Connection, shop: Shop, terminals: int, skew: float, moments: int, limit: int
) -> None:
    merchant_id = await directory.create_merchant(admin, "Crowd", EUR)
    stores = [await directory.create_store(admin, merchant_id, name) for name in ("Hall", "Yard")]
    numbers: list[int | None] = [
        await directory.create_terminal(admin, stores[place % 2], f"Till {place}") for place in range(terminals)
    ]
    await admin.execute(_PAYMENTS, merchant_id, [*numbers, None], skew, moments, 300)
    await admin.execute(_PAYMENTS, shop.merchant_id, [shop.terminals[0].device.number, None], 1.0, moments, 20)

    async def sorted_by_postgres(where: str, *values: object) -> list[str]:
        rows = await admin.fetch(
            f"select reference from payment where merchant_id = $1 and {where} order by changed_at desc, id desc",
            merchant_id,
            *values,
        )
        return [row["reference"] for row in rows]

    async def listed(payment_filter: PaymentFilter) -> list[str]:
        return await all_pages(admin, merchant_id, payment_filter, limit)

    assert await listed(PaymentFilter()) == await sorted_by_postgres("true")
    assert await listed(PaymentFilter(terminal_number=numbers[0])) == await sorted_by_postgres(
        "terminal_number = $2", numbers[0]
    )
    assert await listed(PaymentFilter(store_id=stores[0])) == await sorted_by_postgres(
        "terminal_number in (select number from terminal where store_id = $2)", stores[0]
    )
