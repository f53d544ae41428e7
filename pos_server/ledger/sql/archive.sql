-- name: rollup_horizon
select last_id from rollup_horizon;

-- name: first_unsealed_before
-- A transfer before $1 that no seal covers.
select id from transfer
where id > coalesce((select last_id from seal order by number desc limit 1), 0) and created_at < $1
order by id limit 1;

-- name: archive_payments
-- The next 1000 payments after the key ($1, $2), and the lines of those that may be archived: final since before $3,
-- with all their transfers up to the id $4, which is sealed and rolled up. A line contains every column that is not
-- null.
select w.id, w.merchant_id, w.version, u.line, u.refund_ids, u.transfer_ids
from (
    select * from payment where (id, merchant_id) > ($1, $2) order by id, merchant_id limit 1000
) as w
left join lateral (
    select r.ids as refund_ids, x.ids as transfer_ids,
        jsonb_strip_nulls(jsonb_build_object('payment',
            to_jsonb(w) || jsonb_build_object('fingerprint', encode(w.fingerprint, 'hex')),
            'refunds', r.lines, 'transfers', x.lines))::text as line
    from (
        select coalesce(array_agg(r.id), '{}') as ids,
            coalesce(jsonb_agg(to_jsonb(r) order by r.created_at, r.id), '[]') as lines
        from refund r where r.payment_id = w.id and r.merchant_id = w.merchant_id
    ) as r
    cross join lateral (
        select coalesce(array_agg(t.id), '{}') as ids, coalesce(jsonb_agg(to_jsonb(t) order by t.id), '[]') as lines,
            coalesce(max(t.id) <= $4 and max(t.created_at) < $3, true) as is_settled
        from (
            select x.* from transfer x where x.source_id = w.id
                and is_transfer_of(x.merchant_id, w.merchant_id, w.transfers_named)
                and (x.kind in ('payment', 'top_up', 'withdrawal', 'fee', 'cancel')
                    or (x.kind = 'fee_return' and w.status = 'canceled'))
            union all
            select x.* from refund r2 join transfer x on x.source_id = r2.id and x.kind in ('refund', 'fee_return')
                and is_transfer_of(x.merchant_id, r2.merchant_id, r2.transfers_named)
            where r2.payment_id = w.id and r2.merchant_id = w.merchant_id
        ) as t
    ) as x
    where x.is_settled
) as u on w.changed_at < $3 and w.status <> 'pending'
order by w.id, w.merchant_id;

-- name: archive_settlements
-- The next settlement transfers by id after $1, made before $2 and with ids up to $3, and their lines.
select t.id, jsonb_build_object('transfers', jsonb_build_array(jsonb_strip_nulls(to_jsonb(t))))::text as line
from transfer t where t.kind = 'settlement' and t.id > $1 and t.created_at < $2 and t.id <= $3
order by t.id limit 1000;

-- name: archive_names
-- Only payments that still have the version that was written; every change of a payment increments it.
insert into archived_name (merchant_id, id, status, reference)
select p.merchant_id, p.id, p.status, case when p.status in ('approved', 'canceled') then p.reference end
from payment p join unnest($1::uuid[], $2::bigint[], $3::int[]) as c (id, merchant_id, version)
    on p.id = c.id and p.merchant_id = c.merchant_id and p.version = c.version;

-- name: archive_refund_names
insert into archived_refund (id, merchant_id)
select r.id, r.merchant_id from refund r
join unnest($1::uuid[], $2::bigint[]) as c (id, merchant_id) on r.id = c.id and r.merchant_id = c.merchant_id;

-- name: archive_transfers
-- Deletes transfers from the ledger and adds them to the archived balances; returns the number of deleted transfers.
with deleted as (
    delete from transfer where id = any($1::bigint[]) returning debit_account_id, credit_account_id, amount_minor
), entry as (
    select credit_account_id as account_id, amount_minor from deleted
    union all
    select debit_account_id, -amount_minor from deleted
), summed as (
    insert into archived_balance as b (account_id, balance_minor)
    select account_id, sum(amount_minor) from entry group by account_id
    on conflict (account_id) do update set balance_minor = b.balance_minor + excluded.balance_minor
)
select count(*) from deleted;

-- name: archive_refunds
delete from refund r using unnest($1::uuid[], $2::bigint[]) as c (id, merchant_id)
where r.id = c.id and r.merchant_id = c.merchant_id;

-- name: archive_delete_payments
delete from payment p using unnest($1::uuid[], $2::bigint[], $3::int[]) as c (id, merchant_id, version)
where p.id = c.id and p.merchant_id = c.merchant_id and p.version = c.version;

-- name: last_archive_part
select number, sha256 from archive_part order by number desc limit 1;

-- name: add_archive_part
insert into archive_part (number, before, payments, refunds, settlements, transfers, file, sha256, archived_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: archive_parts
select file, sha256 from archive_part order by number;

-- name: ledger_id
select id from ledger;

-- name: begin_archive_attempt
update ledger set archive_attempts = archive_attempts || gen_random_uuid() returning id, archive_attempts;

-- name: end_archive_attempts
update ledger set archive_attempts = '{}';

-- name: vacuum_archived
-- Makes the space of deleted rows available for new rows.
vacuum (analyze) payment, refund, transfer;

-- name: desummarize_transfer_times
-- The BRIN index stores the oldest and newest time of each block range and never narrows a range by itself. Ranges
-- where new rows replaced deleted ones would match every day in between.
select brin_desummarize_range('transfer_created', block)
from generate_series(0, pg_relation_size('transfer') / current_setting('block_size')::bigint, 32) as block;

-- name: summarize_transfer_times
select brin_summarize_new_values('transfer_created');

-- name: create_archived_digest
create temporary table archived_digest (id bigint primary key, digest bytea not null);
create temporary table archived_sum (account_id bigint primary key, balance_minor numeric not null);

-- name: drop_archived_digest
drop table archived_digest, archived_sum;

-- name: add_archived_digests
insert into archived_digest select * from unnest($1::bigint[], $2::bytea[]) on conflict do nothing;

-- name: add_archived_sums
insert into archived_sum as s select * from unnest($1::bigint[], $2::bigint[])
on conflict (account_id) do update set balance_minor = s.balance_minor + excluded.balance_minor;

-- name: wrong_archived_balances
-- Accounts whose archived balance differs from the sum of the parts.
select coalesce(s.account_id, b.account_id) as account_id, coalesce(s.balance_minor, 0)::bigint as in_parts,
    coalesce(b.balance_minor, 0) as recorded
from archived_sum s full join archived_balance b on b.account_id = s.account_id
where coalesce(s.balance_minor, 0) <> coalesce(b.balance_minor, 0)
order by 1;

-- name: wrongly_archived
-- Those of the payments ($1, $2) with status ($3) and reference ($4), and of the refunds ($5, $6), that are not recorded
-- as archived, or with another status or reference.
select 'payment ' || q.id as name, case
    when a.id is null then 'is not recorded as archived'
    when a.status <> q.status then 'is recorded as ' || a.status || ', not as ' || q.status
    else 'is recorded with another reference' end as problem
from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[]) as q (id, merchant_id, status, reference)
left join archived_name a on a.id = q.id and a.merchant_id = q.merchant_id
where a.id is null or a.status <> q.status
    or a.reference is distinct from case when q.status in ('approved', 'canceled') then q.reference end
union all
select 'refund ' || q.id, 'is not recorded as archived' from unnest($5::uuid[], $6::bigint[]) as q (id, merchant_id)
where not exists (
    select from archived_refund a where a.id = q.id and (a.merchant_id = q.merchant_id or a.merchant_id is null)
)
order by name;
