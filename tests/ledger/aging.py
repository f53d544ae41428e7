"""Make rows older, consistently. This module contains no tests."""

import asyncpg

_FOLLOW_TRANSFERS = (
    """
    update refund r set created_at = x.created_at from transfer x
    where x.kind = 'refund' and x.source_id = r.id and is_transfer_of(x.merchant_id, r.merchant_id, r.transfers_named)
    """,
    """
    update payment p set approved_at = x.created_at,
        changed_at = coalesce((
            select max(r.created_at) from refund r where r.payment_id = p.id and r.merchant_id = p.merchant_id
        ), (
            select c.created_at from transfer c where c.kind = 'cancel' and c.source_id = p.id
                and is_transfer_of(c.merchant_id, p.merchant_id, p.transfers_named)
        ), x.created_at)
    from transfer x
    where x.kind in ('payment', 'top_up', 'withdrawal') and x.source_id = p.id
        and is_transfer_of(x.merchant_id, p.merchant_id, p.transfers_named)
    """,
)


async def follow_transfers(admin: asyncpg.Connection) -> None:
    """Set the times of payments and refunds to those of their transfers."""
    for statement in _FOLLOW_TRANSFERS:
        await admin.execute(statement)


async def age_shifts(admin: asyncpg.Connection, *, days: int) -> None:
    """Make all shifts older by some days."""
    await admin.execute(
        "alter table shift disable trigger shift_is_fixed; "
        f"update shift set opened_at = opened_at - interval '{days} days', "
        f"closed_at = closed_at - interval '{days} days'; "
        "alter table shift enable trigger shift_is_fixed"
    )
