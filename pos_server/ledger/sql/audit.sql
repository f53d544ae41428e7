-- name: audit_counts
select (select count(*) from transfer) as transfers, (select count(*) from payment where purpose = 'sale') as payments,
    (select count(*) from payment where purpose <> 'sale') as cash_movements,
    (select count(*) from wallet) as wallets,
    (select coalesce(sum(payments), 0)::bigint from archive_part) as archived_payments;

-- name: audit_accounts_exist
-- Both accounts of a transfer exist and have its currency. It follows that debits and credits cancel out per currency.
select x.id::text from transfer x
left join account d on d.id = x.debit_account_id and d.currency = x.currency
left join account c on c.id = x.credit_account_id and c.currency = x.currency
where d.id is null or c.id is null
order by x.id limit $1;

-- name: audit_sum_is_zero
-- Over all existing accounts, credits minus debits are zero per currency, including archived transfers.
select currency from (
    select c.currency, x.amount_minor from transfer x join account c on c.id = x.credit_account_id
    union all
    select d.currency, -x.amount_minor from transfer x join account d on d.id = x.debit_account_id
    union all
    select a.currency, b.balance_minor from archived_balance b join account a on a.id = b.account_id
) as entry
group by currency having sum(amount_minor) <> 0
order by currency limit $1;

-- name: audit_balances
-- A wallet's balance equals the credits minus the debits of its account, including archived transfers.
select w.number::text from wallet w
left join (
    select account_id, sum(amount_minor) as balance_minor from (
        select credit_account_id as account_id, amount_minor from transfer
        union all
        select debit_account_id, -amount_minor from transfer
        union all
        select account_id, balance_minor from archived_balance
    ) as entry group by account_id
) as e on e.account_id = w.account_id
where w.balance_minor is distinct from coalesce(e.balance_minor, 0)
order by w.number limit $1;

-- name: audit_payments_paid
-- A payment that was ever approved has exactly one transfer: with the kind and accounts of its purpose, and with the
-- same amount, currency and wallet.
select p.id::text from (
    select p.id, p.merchant_id, p.transfers_named, p.amount_minor, p.currency, p.wallet_number,
        case p.purpose when 'sale' then 'payment' else p.purpose end as kind,
        case p.purpose when 'top_up' then h.id else w.account_id end as debit_account_id,
        case p.purpose when 'sale' then m.account_id when 'top_up' then w.account_id else h.id end as credit_account_id
    from payment p
    left join merchant m on m.id = p.merchant_id
    left join wallet w on w.number = p.wallet_number
    left join account h on h.kind = 'house' and h.currency = p.currency
        and h.name = case p.purpose when 'top_up' then 'cash_in' when 'withdrawal' then 'payout' end
    where p.status = 'approved' or (p.status = 'canceled' and p.approved_at is not null)
) as p
left join transfer x on x.source_id = p.id and x.kind = p.kind
    and is_transfer_of(x.merchant_id, p.merchant_id, p.transfers_named)
    and x.amount_minor = p.amount_minor and x.currency = p.currency and x.wallet_number = p.wallet_number
    and x.debit_account_id = p.debit_account_id and x.credit_account_id = p.credit_account_id
where x.id is null
order by p.id limit $1;

-- name: audit_transfers_owed
-- The transfer of a payment belongs to an approved payment of its merchant with the same purpose.
select x.id::text from transfer x
left join payment p on p.id = x.source_id and is_transfer_of(x.merchant_id, p.merchant_id, p.transfers_named)
    and x.kind = case p.purpose when 'sale' then 'payment' else p.purpose end
    and (p.status = 'approved' or (p.status = 'canceled' and p.approved_at is not null))
where x.kind in ('payment', 'top_up', 'withdrawal') and p.id is null
order by x.id limit $1;

-- name: audit_transfers_once
-- A source has at most one transfer of each kind.
select source_id::text from transfer
group by source_id, merchant_id, kind having count(*) > 1
order by source_id, merchant_id, kind limit $1;

-- name: audit_cancels_paid
-- A payment that was canceled after its approval has exactly one cancel transfer, in the opposite direction. No other
-- payment has a cancel transfer.
select coalesce(p.id, x.source_id)::text from (
    select p.id, p.merchant_id, p.transfers_named, t.amount_minor, t.currency, t.wallet_number, t.debit_account_id,
        t.credit_account_id
    from payment p
    left join transfer t on t.source_id = p.id and t.kind in ('payment', 'top_up', 'withdrawal')
        and is_transfer_of(t.merchant_id, p.merchant_id, p.transfers_named)
    where p.status = 'canceled' and p.approved_at is not null
) as p
full join (select * from transfer where kind = 'cancel') as x on x.source_id = p.id
    and is_transfer_of(x.merchant_id, p.merchant_id, p.transfers_named)
    and x.amount_minor = p.amount_minor and x.currency = p.currency and x.wallet_number = p.wallet_number
    and x.debit_account_id = p.credit_account_id and x.credit_account_id = p.debit_account_id
where p.id is null or x.id is null
order by 1 limit $1;

-- name: audit_fees
-- A sale that was ever approved and has a fee has exactly one fee transfer. The returned fee matches its refunds (the
-- refunded share, rounded down) or its cancel.
select coalesce(p.id, f.id)::text from (
    select p.id, p.merchant_id, p.fee_minor, m.account_id as merchant_account_id, h.id as fees_account_id,
        case when p.status = 'canceled' then p.fee_minor
            else (p.fee_minor::numeric * p.refunded_minor / p.amount_minor)::numeric end as returned
    from payment p
    left join merchant m on m.id = p.merchant_id
    left join account h on h.kind = 'house' and h.currency = p.currency and h.name = 'fees'
    where p.fee_minor > 0 and (p.status = 'approved' or (p.status = 'canceled' and p.approved_at is not null))
) as p
full join (
    -- Before transfers named their merchant, a fee named it by the account.
    select coalesce(r.payment_id, x.source_id) as id, coalesce(x.merchant_id, m.id) as merchant_id,
        sum(x.amount_minor) filter (where x.kind = 'fee') as paid,
        sum(x.amount_minor) filter (where x.kind = 'fee_return') as returned,
        min(case x.kind when 'fee' then x.debit_account_id else x.credit_account_id end) as low_merchant,
        max(case x.kind when 'fee' then x.debit_account_id else x.credit_account_id end) as high_merchant,
        min(case x.kind when 'fee' then x.credit_account_id else x.debit_account_id end) as low_fees,
        max(case x.kind when 'fee' then x.credit_account_id else x.debit_account_id end) as high_fees
    from transfer x
    left join refund r on x.kind = 'fee_return' and r.id = x.source_id
        and is_transfer_of(x.merchant_id, r.merchant_id, r.transfers_named)
    left join merchant m on m.account_id = case x.kind when 'fee' then x.debit_account_id else x.credit_account_id end
    where x.kind in ('fee', 'fee_return')
    group by 1, 2
) as f on f.id = p.id and f.merchant_id = p.merchant_id
where p.id is null or f.id is null or f.paid is distinct from p.fee_minor
    or coalesce(f.returned, 0) is distinct from floor(p.returned)
    or f.low_merchant is distinct from p.merchant_account_id or f.high_merchant is distinct from p.merchant_account_id
    or f.low_fees is distinct from p.fees_account_id or f.high_fees is distinct from p.fees_account_id
order by 1 limit $1;

-- name: audit_refunds_paid
-- A refund has exactly one transfer, from the merchant to the payment's wallet. Every refund transfer has a refund.
select coalesce(r.id, x.source_id)::text from (
    select r.id, r.merchant_id, r.transfers_named, r.amount_minor, r.currency, p.wallet_number,
        w.account_id as wallet_account_id, m.account_id as merchant_account_id
    from refund r
    left join payment p on p.id = r.payment_id and p.currency = r.currency and p.merchant_id = r.merchant_id
        and p.wallet_number = r.wallet_number
    left join merchant m on m.id = p.merchant_id
    left join wallet w on w.number = p.wallet_number
) as r
full join (select * from transfer where kind = 'refund') as x on x.source_id = r.id
    and is_transfer_of(x.merchant_id, r.merchant_id, r.transfers_named)
    and x.amount_minor = r.amount_minor and x.currency = r.currency and x.wallet_number = r.wallet_number
    and x.debit_account_id = r.merchant_account_id and x.credit_account_id = r.wallet_account_id
where r.id is null or x.id is null
order by 1 limit $1;

-- name: audit_refunds_within
-- A payment's refund counters match its refunds, and the refunds do not exceed the payment.
select coalesce(p.id, r.payment_id)::text
from (
    select id, merchant_id, amount_minor, refunded_minor, refunds from payment where refunds > 0 or refunded_minor > 0
) as p
full join (
    select payment_id, merchant_id, sum(amount_minor) as refunded_minor, count(*) as refunds from refund
    group by payment_id, merchant_id
) as r on r.payment_id = p.id and r.merchant_id = p.merchant_id
where p.id is null or r.payment_id is null or p.refunded_minor is distinct from r.refunded_minor
    or p.refunds is distinct from r.refunds or p.refunded_minor > p.amount_minor
order by 1 limit $1;

-- name: audit_pending_in_time
-- No payment is still pending a minute after its expiry, which is more than the sweeper needs.
select p.id::text from payment p
where p.status = 'pending' and p.expires_at < now() - interval '1 minute'
order by p.id limit $1;

-- name: audit_rollup
-- The stored sum up to the horizon matches the transfers up to it. All archived transfers are below the horizon.
select coalesce(r.account_id, e.account_id)::text from account_rollup r
full join (
    select account_id, sum(amount_minor) as balance_minor from (
        select credit_account_id as account_id, amount_minor from transfer
        where id <= (select last_id from rollup_horizon)
        union all
        select debit_account_id, -amount_minor from transfer where id <= (select last_id from rollup_horizon)
        union all
        select account_id, balance_minor from archived_balance
    ) as x join account a on a.id = x.account_id and a.kind <> 'wallet'
    group by account_id
) as e on e.account_id = r.account_id
where coalesce(r.balance_minor, 0) <> coalesce(e.balance_minor, 0)
order by 1 limit $1;

-- name: audit_archive
-- The numbers of archived payments, refunds and settlements match the parts of the archive. An archived settlement is a
-- paid statement whose transfer is no longer in the ledger.
select kind from (
    select 'payments' as kind, (select count(*) from archived_name) as here,
        (select coalesce(sum(payments), 0) from archive_part) as archived
    union all
    select 'refunds', (select count(*) from archived_refund), (select coalesce(sum(refunds), 0) from archive_part)
    union all
    select 'settlements', (
        select count(*) from settlement s where s.paid_out_minor > 0
            and s.created_at < (select max(before) from archive_part)
            and not exists (select from transfer x where x.source_id = s.id and x.kind = 'settlement')
    ), (select coalesce(sum(settlements), 0) from archive_part)
) as counted
where here is distinct from archived
order by kind limit $1;

-- name: audit_archived_once
-- Archived rows are not in the ledger: no payment or refund of the merchant has the same id, and no payment occupies
-- the same order.
select id from (
    select a.id::text from archived_name a join payment p on p.id = a.id and p.merchant_id = a.merchant_id
    union
    select a.id::text from archived_refund a
    join refund r on r.id = a.id and (r.merchant_id = a.merchant_id or a.merchant_id is null)
    union
    select a.id::text from archived_name a join payment p on p.merchant_id = a.merchant_id and p.reference = a.reference
    where p.status in ('pending', 'approved', 'canceled')
) as twice
order by id limit $1;
