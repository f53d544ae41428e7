-- name: create_audited_tables
-- Shadows of tables: Postgres finds temporary tables first, so the checks of the audit run on these rows unchanged.
create temporary table transfer (like transfer, primary key (id));
create temporary table payment (like payment, primary key (id, merchant_id));
create temporary table refund (like refund, primary key (id, merchant_id));
create temporary table shift (like shift, primary key (id, merchant_id));
create temporary table audited_key (id uuid, merchant_id bigint, primary key (id, merchant_id));

-- name: empty_audited_tables
truncate pg_temp.transfer, pg_temp.payment, pg_temp.refund, pg_temp.shift, pg_temp.audited_key;

-- name: analyze_audited_tables
analyze pg_temp.transfer, pg_temp.payment, pg_temp.refund, pg_temp.shift, pg_temp.audited_key;

-- name: drop_audited_tables
drop table if exists pg_temp.transfer, pg_temp.payment, pg_temp.refund, pg_temp.shift, pg_temp.audited_key;

-- name: plan_for_values
set local plan_cache_mode = force_custom_plan;

-- name: search_real_tables_first
select set_config('search_path', current_setting('search_path') || ', pg_temp', true);

-- name: search_shadows_first
select set_config('search_path', replace(current_setting('search_path'), ', pg_temp', ''), true);

-- name: next_seal_to_audit
-- The first seal that was not audited, and the times that its payments changed after and up to: the time of its last
-- transfer, and for the last seal of all the time when it was sealed, less the pause $1.
select s.number, s.day::text, s.first_id, s.last_id, s.transfers, s.digests, s.previous_hash, s.hash,
    coalesce(a.changed_to, 'epoch') as changed_after,
    greatest(a.changed_to, (select max(created_at) from transfer where id between s.first_id and s.last_id),
        case when s.number = (select max(number) from seal) then s.sealed_at - $1::interval end, 'epoch') as changed_to
from (select max(seal_number) as number from audited_seal) as last
left join audited_seal a on a.seal_number = last.number
join seal s on s.number > coalesce(last.number, 0)
order by s.number limit 1;

-- name: hash_before_seal
select hash from seal where number < $1 order by number desc limit 1;

-- name: fill_transfers
insert into pg_temp.transfer select * from transfer where id between $1 and $2;

-- name: fill_keys_of_transfers
insert into audited_key
select p.id, p.merchant_id from pg_temp.transfer x
join payment p on p.id = x.source_id and is_transfer_of(x.merchant_id, p.merchant_id, p.transfers_named)
where x.kind <> 'settlement'
union
select r.payment_id, r.merchant_id from pg_temp.transfer x
join refund r on r.id = x.source_id and is_transfer_of(x.merchant_id, r.merchant_id, r.transfers_named)
where x.kind in ('refund', 'fee_return')
on conflict do nothing;

-- name: fill_keys_of_changes
-- The payments that last changed after $1 and up to $2, at each terminal and each back office. The recursions step from
-- one terminal or merchant to the next by the same indexes, so that none is missed.
with recursive till as (
    (select terminal_number as number from payment where terminal_number is not null order by 1 limit 1)
    union all
    select (select p.terminal_number from payment p where p.terminal_number > till.number order by 1 limit 1)
    from till where till.number is not null
), office as (
    (select merchant_id as id from payment where terminal_number is null order by 1 limit 1)
    union all
    select (
        select p.merchant_id from payment p where p.terminal_number is null and p.merchant_id > office.id
        order by 1 limit 1
    )
    from office where office.id is not null
)
insert into audited_key
select p.* from till cross join lateral (
    select id, merchant_id from payment
    where terminal_number = till.number and changed_at > $1 and changed_at <= $2
) as p
union all
select p.* from office cross join lateral (
    select id, merchant_id from payment
    where merchant_id = office.id and terminal_number is null and changed_at > $1 and changed_at <= $2
) as p
on conflict do nothing;

-- name: fill_keys_of_orders
-- The payments that occupied the orders of declined ones.
insert into audited_key
select p.paid_by, p.merchant_id from audited_key k join payment p on p.id = k.id and p.merchant_id = k.merchant_id
where p.paid_by is not null
on conflict do nothing;

-- name: fill_payments
insert into pg_temp.payment
select p.* from audited_key k join payment p on p.id = k.id and p.merchant_id = k.merchant_id;

-- name: fill_refunds
insert into pg_temp.refund
select r.* from audited_key k join refund r on r.payment_id = k.id and r.merchant_id = k.merchant_id;

-- name: fill_other_transfers
-- The transfers of these payments and refunds that are in other seals. A refund may have the id of a payment.
insert into pg_temp.transfer
select x.* from pg_temp.payment p
join transfer x on x.source_id = p.id and is_transfer_of(x.merchant_id, p.merchant_id, p.transfers_named)
    and (x.kind in ('payment', 'top_up', 'withdrawal', 'fee', 'cancel')
        or (x.kind = 'fee_return' and p.status = 'canceled' and p.fee_minor > 0))
union all
select x.* from pg_temp.refund r
join transfer x on x.source_id = r.id and is_transfer_of(x.merchant_id, r.merchant_id, r.transfers_named)
    and x.kind in ('refund', 'fee_return')
on conflict do nothing;

-- name: fill_shifts_referred_to
insert into pg_temp.shift
select s.* from (
    select shift_id as id from pg_temp.payment
    union
    select canceled_shift_id from pg_temp.payment
    union
    select shift_id from pg_temp.refund
) as q
join shift s on s.id = q.id;

-- name: fill_shifts
-- The shifts that were closed after $1 and up to $2, each with the one before it.
insert into pg_temp.shift
select s.* from shift c
join shift s on s.terminal_number = c.terminal_number and s.opened_at <= c.opened_at
    and (s.id = c.id or s.number = c.number - 1)
where c.closed_at > $1 and c.closed_at <= $2
on conflict do nothing;

-- name: fill_payments_of_shifts
-- A payment of a shift last changed during the shift, or has a transfer of that time.
insert into pg_temp.payment
select p.* from pg_temp.shift s
join payment p on p.terminal_number = s.terminal_number and p.shift_id = s.id
    and p.changed_at between s.opened_at - interval '1 hour' and s.closed_at + interval '1 hour'
union
select p.* from (
    select min(opened_at) - interval '1 hour' as first_at, max(closed_at) + interval '1 hour' as last_at
    from pg_temp.shift where closed_at > $1
) as time
join transfer x on x.created_at between time.first_at and time.last_at and x.kind in ('payment', 'top_up', 'withdrawal')
join payment p on p.id = x.source_id and is_transfer_of(x.merchant_id, p.merchant_id, p.transfers_named)
join pg_temp.shift s on s.id = p.shift_id and s.closed_at > $1
union
select p.* from pg_temp.shift s join payment p on p.canceled_shift_id = s.id;

-- name: fill_refunds_of_shifts
insert into pg_temp.refund select r.* from pg_temp.shift s join refund r on r.shift_id = s.id;

-- name: audited_sizes
select (select count(*) from pg_temp.transfer where id between $1 and $2) as transfers,
    (select count(*) from pg_temp.payment) as payments;

-- name: statement_days
-- The business days whose statements were made after $1 and up to $2.
select min(business_date) as first, max(business_date) as last from settlement
where created_at > $1 and created_at <= $2 having count(*) > 0;

-- name: start_audited_balances
-- What was archived before the first seal is audited.
insert into audited_balance select account_id, balance_minor from archived_balance
where not exists (select from audited_seal);

-- name: add_audited_balances
with entry as (
    select credit_account_id as account_id, amount_minor from transfer where id between $1 and $2
    union all
    select debit_account_id, -amount_minor from transfer where id between $1 and $2
)
insert into audited_balance as b (account_id, balance_minor)
select account_id, sum(amount_minor) from entry group by account_id
on conflict (account_id) do update set balance_minor = b.balance_minor + excluded.balance_minor;

-- name: add_audited_seal
insert into audited_seal (seal_number, seal_hash, last_id, changed_to, transfers, payments, missing)
values ($1, $2, $3, $4, $5, $6, $7);

-- name: audited_last_id
-- The last audited transfer; null if the incremental audit was never used.
select max(last_id) from audited_seal;

-- name: audit_stored_seals
-- Audited seals that are no longer what they were, or that leave a gap; archived transfers that were never audited.
select 'seal ' || a.seal_number from (
    select *, lag(seal_number, 1, 0::bigint) over (order by seal_number) as previous_number from audited_seal
) as a
left join seal s on s.number = a.seal_number
where a.seal_number <> a.previous_number + 1 or (s.hash, s.last_id) is distinct from (a.seal_hash, a.last_id)
union all
select 'archived transfers' where (select coalesce(sum(missing), 0) from audited_seal) > (
    select coalesce(sum(transfers), 0) from archive_part
    where archived_at <= (select min(audited_at) from audited_seal)
)
order by 1 limit $1;

-- name: audit_stored_balances
-- A wallet's balance equals the sum of its audited transfers and of the later ones.
with later as (select * from transfer where id > (select coalesce(max(last_id), 0) from audited_seal)),
    base as (
        select account_id, balance_minor from audited_balance
        union all
        select account_id, balance_minor from archived_balance where not exists (select from audited_seal)
    )
select w.number::text from wallet w
left join (
    select account_id, sum(balance_minor) as balance_minor from (
        select * from base
        union all
        select credit_account_id, amount_minor from later
        union all
        select debit_account_id, -amount_minor from later
    ) as entry group by account_id
) as e on e.account_id = w.account_id
where w.balance_minor is distinct from coalesce(e.balance_minor, 0)
order by w.number limit $1;

-- name: audit_stored_rollup
-- The stored sums up to the roll-up's horizon and the audited sums differ by the transfers between them.
with audited as (select coalesce(max(last_id), 0) as last_id from audited_seal),
    base as (
        select account_id, balance_minor from audited_balance
        union all
        select account_id, balance_minor from archived_balance where not exists (select from audited_seal)
    ),
    between_both as (
        select x.*, case when h.last_id > a.last_id then 1 else -1 end as sign
        from rollup_horizon h cross join audited a
        join transfer x on x.id > least(h.last_id, a.last_id) and x.id <= greatest(h.last_id, a.last_id)
    )
select coalesce(r.account_id, e.account_id)::text from account_rollup r
full join (
    select account_id, sum(balance_minor) as balance_minor from (
        select * from base
        union all
        select credit_account_id, sign * amount_minor from between_both
        union all
        select debit_account_id, -sign * amount_minor from between_both
    ) as x join account a on a.id = x.account_id and a.kind <> 'wallet'
    group by account_id
) as e on e.account_id = r.account_id
where coalesce(r.balance_minor, 0) <> coalesce(e.balance_minor, 0)
order by 1 limit $1;

-- name: audit_stored_sums
-- The audited sums cancel out per currency.
select coalesce(a.currency, 'unknown account') from audited_balance b left join account a on a.id = b.account_id
group by 1 having sum(b.balance_minor) <> 0 or max(a.currency) is null order by 1 limit $1;

-- name: incremental_summary
-- What has been proved by now, and the number of transfers that came later.
select (select count(*) from audited_seal) as seals,
    (select coalesce(sum(transfers), 0)::bigint from audited_seal) as transfers,
    (select day::text from seal where number = (select max(seal_number) from audited_seal)) as last_day,
    (select count(*) from transfer where id > (select coalesce(max(last_id), 0) from audited_seal)) as later_transfers;
