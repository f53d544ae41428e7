-- part: wallets_applied
-- Updates wallets, each only if it still has the version of the decision, and devices' spent codes. Locked rows carry
-- their changes with them, so that no part joins two others: with some statistics the planner would compare each row of
-- a batch with every other row. Each `between` is always true. It makes the planner expect one row and use the index,
-- which is best for a batch too, whatever the table contained when the statement was planned.
locked as materialized (
    select c.* from unnest($1::wallet_change[]) as c join wallet w on w.number = c.number and w.version = c.seen_version
    where c.number between 1 and 9999999999
    order by w.number
    for no key update of w
), moved as (
    update wallet w set balance_minor = c.balance_minor, version = c.version, pin_failures = c.pin_failures,
        pin_locked_until = from_unix_ms(c.pin_locked_until_ms), day_start = from_unix_ms(c.day_start_ms),
        day_spent_minor = c.day_spent_minor, day_pin_free_minor = c.day_pin_free_minor,
        day_pin_free_count = c.day_pin_free_count
    from locked c
    where w.number = c.number and w.version = c.seen_version
    returning 1
), spent as (
    update wallet_device d set spent_mark = c.spent_mark
    from (
        select * from unnest($2::spent_code[]) where slot between 0 and 9 and (select count(*) from locked) >= 0
    ) as c
    where d.wallet_number = c.wallet_number and d.slot = c.slot and d.spent_mark <= c.spent_mark
    returning 1
)

-- part: payments_and_transfers_added
paid as (
    insert into payment (id, fingerprint, terminal_number, merchant_id, wallet_number, reference, amount_minor,
        currency, status, decline_code, paid_by, version, changed_at, approved_at, expires_at, pin_failures,
        refunded_minor, refunds, purpose, fee_minor, shift_id, canceled_shift_id)
    select payment_id, fingerprint, terminal_number, merchant_id, wallet_number, reference, amount_minor, currency,
        status, decline_code, paid_by, version, from_unix_ms($4), from_unix_ms(approved_at_ms),
        from_unix_ms(expires_at_ms), pin_failures, refunded_minor, refunds, purpose, fee_minor, shift_id,
        canceled_shift_id
    from unnest($3::payment_change[]) where seen_version = 0
), posted as (
    insert into transfer (kind, source_id, debit_account_id, credit_account_id, amount_minor, currency,
        wallet_number, merchant_id, created_at)
    select x.*, from_unix_ms($4) from unnest($5::new_transfer[]) as x
)

-- part: shift_lock
-- Locks the terminal of each open shift that the batch adds to, so that the shift is closed before or after the batch.
cross join lateral (
    select t.number from terminal t where t.number = c.terminal_number and t.shift_id = c.shift_id limit 1 for share
) as l

-- part: failed_guards
when (select count(*) from moved) <> cardinality($1) then ledger_conflict('wallet version')
    when (select count(*) from spent) <> cardinality($2) then ledger_conflict('spent code')
    when (select count(*) from shift_locked) <> cardinality($6) then ledger_conflict('shift closed')

-- name: load_snapshot
-- The rows that a batch of operations needs, one result row per operation:
-- * the requesting terminal (till_*);
-- * the merchant's payment with that id, else the one that occupies the order, and its terminal (other_till);
-- * the payment's wallet, else the wallet of the code, and the device that made the code;
-- * for an archived payment, its id and the order it occupies. They are read in the same snapshot as live rows, so that
--   a payment is found in one of the two places while it moves.
-- The `limit`s keep the planner from joining whole tables: it plans once, perhaps while they are still empty. Each join
-- prepares all columns that it passes on, which is most of the work for a lone payment. So wide rows come last, or as
-- one value.
select
    q.position,
    t.number as till_number, t.status as terminal_status, t.shift_id as terminal_shift_id, s.name as store_name,
    m.id as till_merchant_id, m.currency as till_currency,
    m.status as merchant_status, m.account_id as merchant_account_id, m.name as merchant_name,
    m.fee_bps, m.fee_fixed_minor,
    case when p.terminal_number <> t.number then (
        select row(pt.number, pt.status, pt.shift_id, ps.name)::other_till
        from terminal pt join store ps on ps.id = pt.store_id where pt.number = p.terminal_number
    ) end as other_till,
    {wallet_columns},
    d.wallet_number as device_wallet_number, d.slot, d.kid, d.generation, d.status as device_status,
    d.spent_mark,
    p.payment,
    coalesce(o.id, ao.id) as open_payment_id, coalesce(o.status, ao.status) as open_payment_status,
    ao.id as archived_order_id,
    (
        select a.id from archived_name a where a.id = q.payment_id and a.merchant_id = q.merchant_id
    ) as archived_payment_id
from unnest($1::operation_key[]) with ordinality
    as q (payment_id, terminal_number, merchant_id, reference, wallet_number, slot, position)
left join lateral (
    select o.id, o.status from payment o
    where o.merchant_id = q.merchant_id and o.reference = q.reference
        and o.status in ('pending', 'approved', 'canceled')
    limit 1
) as o on true
left join lateral (
    select a.id, a.status from archived_name a where a.merchant_id = q.merchant_id and a.reference = q.reference limit 1
) as ao on true
left join lateral (
    select f.terminal_number, f.merchant_id, f.payment_wallet_number, f::stored_payment as payment
    from (
        select {payment_columns} from payment p
        where p.id = coalesce(q.payment_id, o.id) and p.merchant_id = q.merchant_id limit 1
    ) as f
) as p on true
left join terminal t on t.number = coalesce(q.terminal_number, p.terminal_number)
left join store s on s.id = t.store_id
left join merchant m on m.id = coalesce(s.merchant_id, q.merchant_id)
left join lateral (
    select * from wallet_device d where d.wallet_number = q.wallet_number and d.slot = q.slot limit 1
) as d on true
left join lateral (
    select * from wallet w where w.number = coalesce(p.payment_wallet_number, q.wallet_number) limit 1
) as w on true;

-- name: load_refunds
-- The refund with each key, and whether a refund with that key is archived.
select {refund_columns}, q.merchant_id as searched_merchant_id, q.id as searched_id, exists (
    select from archived_refund a
    where a.id = q.id and (a.merchant_id = q.merchant_id or a.merchant_id is null)
) as archived
from unnest($1::bigint[], $2::uuid[]) as q (merchant_id, id)
left join lateral (select * from refund r where r.id = q.id and r.merchant_id = q.merchant_id limit 1) as r on true;

-- name: apply_new_payments
-- All changes of a batch that changes no stored payment, in one statement and so in one commit. A failed guard undoes
-- all changes, and so does a payment id or an order that another server stored meanwhile.
with {wallets_applied}, {payments_and_transfers_added}, shift_locked as materialized (
    select l.number from (
        select * from unnest($6::joined_shift[]) where (select count(*) from locked) >= 0 order by terminal_number
    ) as c
    {shift_lock}
)
select case {failed_guards} else true end;

-- name: apply_changes
-- The same for a batch that also changes or refunds stored payments. It locks wallets, then payments, then terminals.
with {wallets_applied}, payment_locked as materialized (
    select c.* from (
        select * from unnest($3::payment_change[])
        where seen_version between 1 and 2147483647 and (select count(*) from locked) >= 0
        order by payment_id, merchant_id
    ) as c
    cross join lateral (
        select from payment p
        where p.id = c.payment_id and p.merchant_id = c.merchant_id and p.version = c.seen_version
        limit 1 for no key update
    ) as l
), changed as (
    update payment p set fingerprint = c.fingerprint, terminal_number = c.terminal_number,
        wallet_number = c.wallet_number, reference = c.reference, amount_minor = c.amount_minor, status = c.status,
        decline_code = c.decline_code, paid_by = c.paid_by, version = c.version,
        changed_at = from_unix_ms($4), approved_at = from_unix_ms(c.approved_at_ms),
        expires_at = from_unix_ms(c.expires_at_ms), pin_failures = c.pin_failures, refunded_minor = c.refunded_minor,
        refunds = c.refunds, purpose = c.purpose, fee_minor = c.fee_minor, shift_id = c.shift_id,
        canceled_shift_id = c.canceled_shift_id
    from payment_locked c
    where p.id = c.payment_id and p.merchant_id = c.merchant_id and p.version = c.seen_version
    returning 1
), refunded as (
    insert into refund (id, payment_id, merchant_id, terminal_number, wallet_number, amount_minor, currency, shift_id,
        created_at)
    select r.*, from_unix_ms($4) from unnest($7::new_refund[]) as r
), {payments_and_transfers_added}, shift_locked as materialized (
    select l.number from (
        select * from unnest($6::joined_shift[])
        where (select count(*) from payment_locked) >= 0 order by terminal_number
    ) as c
    {shift_lock}
)
select case {failed_guards}
    when (select count(*) from changed)
        <> (select count(*) from unnest($3::payment_change[]) where seen_version > 0)
        then ledger_conflict('payment version')
    else true end;

-- name: payments_to_expire
select id, merchant_id from payment
where status = 'pending' and expires_at <= from_unix_ms($1)
order by expires_at limit $2;

-- name: house_accounts
select name, currency, id from account where kind = 'house';
