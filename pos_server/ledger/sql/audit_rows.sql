-- name: audit_payments_sound
-- The columns of a payment agree with each other: status, times, version, counts, and a decline code ($2: all codes).
-- The version counts the changes: a direct decision is the first, one by PIN follows a scan and each wrong PIN.
select p.id::text from payment p
where p.amount_minor < 0 or p.fee_minor not between 0 and p.amount_minor or (p.fee_minor > 0 and p.purpose <> 'sale')
    or p.refunded_minor not between 0 and p.amount_minor
    or (p.status <> 'approved' and (p.refunds <> 0 or p.refunded_minor <> 0))
    or (p.status = 'approved' and p.refunds = 0 and unix_ms(p.changed_at) is distinct from unix_ms(p.approved_at))
    or (p.approved_at is not null and p.status not in ('approved', 'canceled'))
    or (p.status = 'canceled' and p.approved_at is null and p.expires_at is null and p.fingerprint is not null)
    or p.approved_at >= p.expires_at or (p.status = 'expired' and p.changed_at < p.expires_at)
    or (p.status in ('expired', 'pending') and p.expires_at is null)
    or p.pin_failures < 0 or (p.expires_at is null and p.pin_failures <> 0)
    or case
        when p.approved_at is not null then p.version <> 1 + p.refunds + (p.status = 'canceled')::integer
            + case when p.expires_at is null then 0 else 1 + p.pin_failures end
        when p.expires_at is null then p.version not in (1, 2)
        when p.status = 'pending' then p.version <> 1 + p.pin_failures
        else p.version - p.pin_failures not in (1, 2)
    end
    or (p.decline_code is not null) <> (p.status = 'declined') or p.decline_code <> all($2::text[])
    or (p.paid_by is not null)
        <> (p.decline_code is not null and p.decline_code in ('already_paid', 'already_pending'))
    or (p.canceled_shift_id is not null and (p.status <> 'canceled' or p.approved_at is null))
    or p.changed_at > now() + interval '1 minute'
order by p.id limit $1;

-- name: audit_paid_by
-- The payment that occupied the order of a declined one is a payment of the merchant for the same order.
select p.id::text from payment p
left join payment o on o.id = p.paid_by and o.merchant_id = p.merchant_id and o.reference = p.reference
left join archived_name a on a.id = p.paid_by and a.merchant_id = p.merchant_id
    and coalesce(a.reference, p.reference) = p.reference
where p.paid_by is not null and (p.paid_by = p.id or (o.id is null and a.id is null))
order by p.id limit $1;

-- name: audit_times
-- A transfer has the time of the approval, cancel or refund that caused it. A payment last changed when it was approved,
-- canceled or refunded.
select id::text from (
    select p.id from payment p
    join transfer x on x.source_id = p.id and is_transfer_of(x.merchant_id, p.merchant_id, p.transfers_named)
        and (x.kind in ('payment', 'top_up', 'withdrawal', 'fee', 'cancel')
            or (x.kind = 'fee_return' and p.status = 'canceled' and p.fee_minor > 0))
    where unix_ms(x.created_at)
        is distinct from unix_ms(case when x.kind in ('cancel', 'fee_return') then p.changed_at else p.approved_at end)
    union
    select r.id from refund r
    join transfer x on x.source_id = r.id and x.kind in ('refund', 'fee_return')
        and is_transfer_of(x.merchant_id, r.merchant_id, r.transfers_named)
    left join payment c on x.kind = 'fee_return' and c.id = r.id and c.merchant_id = r.merchant_id
        and c.status = 'canceled' and c.fee_minor > 0
    where c.id is null and unix_ms(x.created_at) is distinct from unix_ms(r.created_at)
    union
    select p.id from payment p
    where p.refunds > 0 and not exists (
        select from refund r where r.payment_id = p.id and r.merchant_id = p.merchant_id
            and unix_ms(r.created_at) = unix_ms(p.changed_at)
    )
) as wrong
order by id limit $1;

-- name: audit_owners
-- The terminal of a payment or refund stands in a store of its merchant, and its merchant and wallet exist.
select q.id::text from (
    select id, merchant_id, terminal_number, wallet_number from payment
    union all
    select id, merchant_id, terminal_number, wallet_number from refund
) as q
left join merchant m on m.id = q.merchant_id
left join wallet w on w.number = q.wallet_number
left join terminal t on t.number = q.terminal_number
left join store s on s.id = t.store_id
where m.id is null or (q.wallet_number is not null and w.number is null)
    or (q.terminal_number is not null and s.merchant_id is distinct from q.merchant_id)
order by 1 limit $1;

-- name: audit_directory
-- Every account belongs to one merchant, wallet or house purpose with its name and currency; stores, terminals, devices,
-- activation codes and keys belong to something that exists.
select name from (
    select 'merchant ' || m.id as name from merchant m left join account a on a.id = m.account_id
    where (a.kind, a.name, a.currency) is distinct from ('merchant', m.name, m.currency)
    union all
    select 'wallet ' || w.number from wallet w left join account a on a.id = w.account_id
    where (a.kind, a.name, a.currency) is distinct from ('wallet', w.name, w.currency::text)
    union all
    select 'account ' || a.id from account a
    left join merchant m on m.account_id = a.id
    left join wallet w on w.account_id = a.id
    where case a.kind when 'merchant' then m.id is null when 'wallet' then w.number is null
        else a.kind <> 'house' or a.name not in ('cash_in', 'payout', 'fees', 'settlement') end
    union all
    select 'house account ' || h.name || ' ' || used.currency
    from unnest(array['cash_in', 'payout', 'fees', 'settlement']) as h (name)
    cross join (select currency from merchant union select currency from wallet) as used
    where (
        select count(*) from account a where a.kind = 'house' and a.name = h.name and a.currency = used.currency
    ) <> 1
    union all
    select 'store ' || s.id from store s left join merchant m on m.id = s.merchant_id where m.id is null
    union all
    select 'terminal ' || t.number from terminal t left join store s on s.id = t.store_id
    where s.id is null or t.generation < 0 or (t.kid is null) <> (t.generation = 0)
    union all
    select 'device ' || d.slot || ' of wallet ' || d.wallet_number from wallet_device d
    left join wallet w on w.number = d.wallet_number
    where w.number is null or d.generation < 0 or (d.generation = 0 and (d.kid is not null or d.spent_mark <> 0))
    union all
    select 'activation of ' || a.kind || ' ' || a.number from activation a
    left join terminal t on a.kind = 'terminal' and t.number = a.number
    left join wallet_device d on a.kind = 'wallet' and d.wallet_number = a.number and d.slot = a.slot
    where (t.number is null and d.wallet_number is null)
        or (a.request_id is null) <> (a.generation is null) or (a.kid is null) <> (a.generation is null)
        or a.generation > coalesce(t.generation, d.generation)
    union all
    select 'API key ' || k.id from api_key k left join merchant m on m.id = k.merchant_id
    where (k.role = 'merchant') <> (m.id is not null) or (k.merchant_id is not null) <> (m.id is not null)
) as wrong
order by name limit $1;

-- name: audit_day_counters
-- A wallet's spending since its day started matches its payments: those that were not canceled, and those without a PIN.
-- A payment of the minute before may count too, because servers' clocks differ. Not checked for days before the
-- archive's horizon.
select w.number::text from wallet w
left join lateral (
    select coalesce(sum(p.amount_minor) filter (where p.status = 'approved' and is_sure), 0) as spent_min,
        coalesce(sum(p.amount_minor) filter (where p.status = 'approved'), 0) as spent_max,
        coalesce(sum(p.amount_minor) filter (where is_pin_free and is_sure), 0) as pin_free_min,
        coalesce(sum(p.amount_minor) filter (where is_pin_free), 0) as pin_free_max,
        count(*) filter (where is_pin_free and is_sure) as count_min, count(*) filter (where is_pin_free) as count_max
    from (
        select p.amount_minor, p.status, p.approved_at >= w.day_start as is_sure,
            p.purpose = 'sale' and p.expires_at is null as is_pin_free
        from payment p
        where p.wallet_number = w.number and p.approved_at >= w.day_start - interval '1 minute'
            and p.changed_at >= w.day_start - interval '2 minutes' and p.purpose <> 'top_up'
    ) as p
) as e on true
where w.day_start >= (select coalesce(max(before), '-infinity') from archive_part)
    and (w.day_spent_minor not between e.spent_min and e.spent_max
        or w.day_pin_free_minor not between e.pin_free_min and e.pin_free_max
        or w.day_pin_free_count not between e.count_min and e.count_max)
    or w.day_start > now() + interval '1 day' or w.pin_failures < 0
order by w.number limit $1;

-- name: audit_future
-- Nothing has happened in the future. (Payments and statements are compared with the time by their own checks.)
select name from (
    select 'transfer ' || id as name from transfer where created_at > now() + interval '1 minute'
    union all
    select 'refund ' || r.id from refund r where r.created_at > now() + interval '1 minute'
    union all
    select 'shift ' || id from shift where greatest(opened_at, closed_at) > now() + interval '5 minutes'
    union all
    select 'API key ' || id from api_key where greatest(created_at, last_used_at) > now() + interval '1 minute'
        or last_used_at < created_at - interval '1 minute'
    union all
    select 'request ' || key from idempotency_key where created_at > now() + interval '1 minute'
    union all
    select 'migration ' || number from migration where applied_at > now() + interval '1 minute'
) as wrong
order by name limit $1;

-- name: audit_horizons
-- No horizon is beyond what exists, and seals and parts of the archive follow each other without a gap. The seals' hashes
-- are checked by `--seals`, and the archive's files by `--archive`.
with issued as (
    select coalesce(pg_sequence_last_value(pg_get_serial_sequence('transfer', 'id')::regclass), 0) as last_id
)
select name from (
    select 'roll-up' as name from issued left join rollup_horizon h on true
    where h.last_id is null or h.last_id not between 0 and issued.last_id
    union all
    select 'transfer ' || x.id from (select max(id) as id from transfer) as x, issued where x.id > issued.last_id
    union all
    select 'seal ' || s.number from (
        select s.*, lag(number) over w as previous_number, lag(last_id) over w as previous_id,
            lag(day) over w as previous_day, lag(hash) over w as previous
        from seal s window w as (order by number)
    ) as s, issued
    where s.number is distinct from coalesce(s.previous_number + 1, 1)
        or s.first_id is distinct from coalesce(s.previous_id + 1, 1)
        or s.last_id not between s.first_id - 1 and issued.last_id
        or s.transfers not between 0 and s.last_id - s.first_id + 1 or octet_length(s.digests) <> 16 * s.transfers
        or s.day not between s.previous_day and s.previous_day + 1
        or s.previous_hash is distinct from coalesce(s.previous, decode(repeat('00', 32), 'hex'))
        or s.sealed_at > now() + interval '1 minute' or s.sealed_at < s.day
    union all
    select 'part ' || p.number from (
        select p.*, lag(number) over w as previous_number, lag(before) over w as previous_before,
            lag(archived_at) over w as previous_at, sum(transfers) over w as archived
        from archive_part p window w as (order by number)
    ) as p, issued
    where p.number is distinct from coalesce(p.previous_number + 1, 1)
        or p.before < p.previous_before or p.before > p.archived_at
        or least(p.payments, p.refunds, p.settlements, p.transfers) < 0
        or p.file is distinct from 'payments-' || lpad(p.number::text, 6, '0') || '.jsonl.gz'
        or p.archived > (select coalesce(sum(transfers), 0) from seal)
    union all
    select 'ledger' where (select count(*) from ledger) <> 1
) as wrong
order by name limit $1;
