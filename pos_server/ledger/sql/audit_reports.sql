-- name: audit_settlements
-- Every figure of a statement of the days $2 to $3 matches its transfers, its merchant, the previous statement and the
-- transfer that paid it. Archived rows can no longer be summed. So movements are not checked for days that begin before
-- the archive's horizon, nor payouts for statements made before it (audit_archive counts those).
select s.id::text from (
    select s.*, m.account_id, m.currency as merchant_currency, h.id as house_id, b.closing_minor as previous_minor,
        b.ends_at as previous_end, b.business_date as previous_date, horizon.before as archived_before
    from settlement s
    cross join (select coalesce(max(before), '-infinity') as before from archive_part) as horizon
    left join merchant m on m.id = s.merchant_id
    left join account h on h.kind = 'house' and h.name = 'settlement' and h.currency = s.currency
    left join lateral (
        select b.closing_minor, b.ends_at, b.business_date from settlement b
        where b.merchant_id = s.merchant_id and b.business_date < s.business_date order by b.business_date desc limit 1
    ) as b on true
    where s.business_date between $2 and $3
) as s
left join (
    -- Each entry looks up its day by an index, so years of days cost no more than one day.
    select day.id, count(*) filter (where e.kind = 'payment') as sales,
        sum(amount_minor) filter (where e.kind = 'payment') as sales_minor,
        count(*) filter (where e.kind = 'cancel') as cancels,
        sum(amount_minor) filter (where e.kind = 'cancel') as cancels_minor,
        count(*) filter (where e.kind = 'refund') as refunds,
        sum(amount_minor) filter (where e.kind = 'refund') as refunds_minor,
        sum(amount_minor) filter (where e.kind = 'fee') as fees_minor,
        sum(amount_minor) filter (where e.kind = 'fee_return') as fees_returned_minor
    from (
        select case when kind in ('payment', 'fee_return') then credit_account_id else debit_account_id end
            as account_id, kind, amount_minor, created_at
        from transfer
        where kind in ('payment', 'fee_return', 'cancel', 'refund', 'fee')
            and created_at >= (select min(starts_at) from settlement where business_date between $2 and $3)
            and created_at < (select max(ends_at) from settlement where business_date between $2 and $3)
    ) as e
    join merchant m on m.account_id = e.account_id
    cross join lateral (
        select s.id, s.ends_at, s.business_date from settlement s
        where s.merchant_id = m.id and s.starts_at <= e.created_at
        order by s.starts_at desc, s.business_date desc limit 1
    ) as day
    where e.created_at < day.ends_at and day.business_date between $2 and $3
    group by day.id
) as f on f.id = s.id
left join transfer x on x.source_id = s.id and x.kind = 'settlement'
where s.currency is distinct from s.merchant_currency
    or ((s.sales, s.sales_minor, s.cancels, s.cancels_minor, s.refunds, s.refunds_minor, s.fees_minor,
            s.fees_returned_minor) is distinct from (coalesce(f.sales, 0), coalesce(f.sales_minor, 0),
            coalesce(f.cancels, 0), coalesce(f.cancels_minor, 0), coalesce(f.refunds, 0), coalesce(f.refunds_minor, 0),
            coalesce(f.fees_minor, 0), coalesce(f.fees_returned_minor, 0))
        and s.starts_at >= s.archived_before)
    or s.net_minor
        is distinct from s.sales_minor - s.cancels_minor - s.refunds_minor - s.fees_minor + s.fees_returned_minor
    or s.opening_minor is distinct from coalesce(s.previous_minor, 0)
    or s.paid_out_minor is distinct from greatest(s.opening_minor + s.net_minor, 0)
    or s.closing_minor is distinct from s.opening_minor + s.net_minor - s.paid_out_minor
    or s.starts_at is distinct from coalesce(s.previous_end, s.starts_at)
    or s.business_date is distinct from coalesce(s.previous_date + 1, s.business_date)
    -- The latest start is that of the last cut-off at the date line; a day that begins otherwise is of another date.
    or s.starts_at < s.business_date::timestamp at time zone 'UTC' - interval '14 hours'
    or s.starts_at > s.business_date::timestamp at time zone 'UTC' + interval '36 hours'
    or s.ends_at < s.starts_at or s.created_at < s.ends_at or s.created_at > now() + interval '1 minute'
    or (s.paid_out_minor > 0 and x.id is null and s.created_at >= s.archived_before)
    or (s.paid_out_minor = 0 and x.id is not null)
    or (x.id is not null and (x.amount_minor, x.debit_account_id, x.credit_account_id, x.currency, x.merchant_id,
            x.wallet_number, x.created_at)
        is distinct from (s.paid_out_minor, s.account_id, s.house_id, s.currency, s.merchant_id, null::bigint,
            s.created_at))
order by 1 limit $1;

-- name: audit_payouts
-- Every settlement transfer has a statement.
select x.source_id::text from transfer x
left join settlement s on s.id = x.source_id
where x.kind = 'settlement' and s.id is null
order by 1 limit $1;

-- name: audit_shifts
-- A closed shift's totals match its payments, cancels and refunds, and none of its payments is pending. The shifts of a
-- terminal follow each other and belong to its merchant, and payments of a shift were approved while it was open (five
-- minutes allow for differences between servers' clocks). Totals are not checked for shifts that were opened before the
-- archive's horizon, because archived rows can no longer be summed. Null totals are computed by the next read. Shifts
-- that were closed up to $2 are not checked.
with figures as (
    select merchant_id, shift_id, jsonb_object_agg(kind, jsonb_build_array(count, amount_minor)) as figures,
        min(first_at) as first_at, max(last_at) as last_at
    from (
        select merchant_id, shift_id, kind, count(*) as count, sum(amount_minor) as amount_minor, min(at) as first_at,
            max(at) as last_at
        from (
            select merchant_id, shift_id, case when approved_at is null then status else purpose end as kind,
                amount_minor, case when expires_at is null then approved_at end as at
            from payment where shift_id is not null
            union all
            select merchant_id, canceled_shift_id, purpose || '_cancel', amount_minor, changed_at from payment
            where canceled_shift_id is not null
            union all
            select merchant_id, shift_id, 'refund', amount_minor, created_at from refund where shift_id is not null
        ) as done group by merchant_id, shift_id, kind
    ) as summed group by merchant_id, shift_id
)
select s.id::text from shift s
left join figures f on f.shift_id = s.id and f.merchant_id = s.merchant_id
left join terminal t on t.number = s.terminal_number
left join store st on st.id = t.store_id
left join lateral (
    select b.number, b.closed_at from shift b where b.terminal_number = s.terminal_number and b.number < s.number
    order by b.number desc limit 1
) as b on true
where coalesce(s.closed_at, 'infinity') > $2 and ((s.figures <> coalesce(f.figures, '{}')
        and s.opened_at >= (select coalesce(max(before), '-infinity') from archive_part))
    or (s.closed_at is not null and f.figures ? 'pending')
    or (s.closed_at is null and (s.figures is not null or s.counted_cash_minor is not null))
    or s.opening_cash_minor < 0 or s.counted_cash_minor < 0
    or st.merchant_id is distinct from s.merchant_id
    or s.number is distinct from coalesce(b.number + 1, 1) or (b.number is not null and b.closed_at is null)
    or s.opened_at < b.closed_at - interval '5 minutes' or s.closed_at < s.opened_at - interval '5 minutes'
    or f.first_at < s.opened_at - interval '5 minutes' or f.last_at > s.closed_at + interval '5 minutes'
    or greatest(s.opened_at, s.closed_at) > now() + interval '5 minutes')
order by 1 limit $1;

-- name: audit_open_shifts
-- The open shift of a terminal is the one that the terminal refers to.
select s.id::text from shift s
left join terminal t on t.number = s.terminal_number
where s.closed_at is null and t.shift_id is distinct from s.id
union
select t.shift_id::text from terminal t
left join shift s on s.id = t.shift_id and s.terminal_number = t.number and s.closed_at is null
where t.shift_id is not null and s.id is null
order by 1 limit $1;

-- name: audit_shifts_exist
-- The shift of a payment, cancel or refund exists and belongs to its merchant, and the shift of a payment or refund to
-- its terminal.
select q.shift_id::text from (
    select shift_id, merchant_id, terminal_number from payment where shift_id is not null
    union all
    select canceled_shift_id, merchant_id, null from payment where canceled_shift_id is not null
    union all
    select shift_id, merchant_id, terminal_number from refund where shift_id is not null
) as q
left join shift s on s.id = q.shift_id and s.merchant_id = q.merchant_id
    and s.terminal_number = coalesce(q.terminal_number, s.terminal_number)
where s.id is null
group by 1 order by 1 limit $1;
