-- name: merchants_to_settle
-- The last settled day of each merchant; for one that has none, the time of its first transfer. A merchant without both
-- is left out. A merchant that has no statement had no transfer on the day that was settled last, in any time zone, so
-- only later transfers are read.
with never as materialized (
    select m.account_id from merchant m where not exists (select from settlement s where s.merchant_id = m.id)
), later as (
    select coalesce((select max(business_date) from settlement)::timestamp at time zone 'UTC', '-infinity') as than
), first as (
    select account_id, min(created_at) as first_at from (
        select credit_account_id as account_id, created_at from transfer
        where created_at >= (select than from later) and exists (select from never)
        union all
        select debit_account_id, created_at from transfer
        where created_at >= (select than from later) and exists (select from never)
    ) as entry
    where account_id in (select account_id from never)
    group by account_id
)
select m.id as merchant_id, m.time_zone, m.cut_off, s.business_date as last_date, s.ends_at as last_ends_at, f.first_at
from merchant m
left join lateral (
    select business_date, ends_at from settlement where merchant_id = m.id order by business_date desc limit 1
) as s on true
left join first f on f.account_id = m.account_id
where s.business_date is not null or f.first_at is not null;

-- name: first_settled_date
select min(business_date) from settlement;

-- name: settle_day
-- Settles one business day ($1) for merchants ($2), each from a start ($3) up to an end ($4): sums the movements on its
-- account and transfers the payout. Returns the number of new statements.
with day as (
    select m.id as merchant_id, m.account_id, m.currency, gen_random_uuid() as id, d.starts_at, d.ends_at,
        b.closing_minor as carried_minor
    from unnest($2::bigint[], $3::timestamptz[], $4::timestamptz[]) as d (merchant_id, starts_at, ends_at)
    join merchant m on m.id = d.merchant_id
    left join lateral (
        select closing_minor from settlement s where s.merchant_id = m.id and s.business_date < $1
        order by s.business_date desc limit 1
    ) as b on true
), moved as (
    select credit_account_id as account_id, kind, amount_minor, created_at from transfer
    where kind in ('payment', 'fee_return') and created_at < (select max(ends_at) from day)
        and created_at >= (select min(starts_at) from day)
    union all
    select debit_account_id, kind, amount_minor, created_at from transfer
    where kind in ('cancel', 'refund', 'fee') and created_at < (select max(ends_at) from day)
        and created_at >= (select min(starts_at) from day)
), flow as (
    select d.merchant_id,
        count(*) filter (where kind = 'payment') as sales,
        coalesce(sum(amount_minor) filter (where kind = 'payment'), 0)::bigint as sales_minor,
        count(*) filter (where kind = 'cancel') as cancels,
        coalesce(sum(amount_minor) filter (where kind = 'cancel'), 0)::bigint as cancels_minor,
        count(*) filter (where kind = 'refund') as refunds,
        coalesce(sum(amount_minor) filter (where kind = 'refund'), 0)::bigint as refunds_minor,
        coalesce(sum(amount_minor) filter (where kind = 'fee'), 0)::bigint as fees_minor,
        coalesce(sum(amount_minor) filter (where kind = 'fee_return'), 0)::bigint as fees_returned_minor
    from day d join moved t on t.account_id = d.account_id and t.created_at >= d.starts_at and t.created_at < d.ends_at
    group by d.merchant_id
), figures as (
    select d.*, coalesce(d.carried_minor, 0) as opening_minor,
        coalesce(sales, 0) as sales, coalesce(sales_minor, 0) as sales_minor, coalesce(cancels, 0) as cancels,
        coalesce(cancels_minor, 0) as cancels_minor, coalesce(refunds, 0) as refunds,
        coalesce(refunds_minor, 0) as refunds_minor, coalesce(fees_minor, 0) as fees_minor,
        coalesce(fees_returned_minor, 0) as fees_returned_minor,
        coalesce(sales_minor - cancels_minor - refunds_minor - fees_minor + fees_returned_minor, 0) as net_minor
    from day d left join flow f on f.merchant_id = d.merchant_id
), stated as (
    insert into settlement (id, merchant_id, business_date, currency, starts_at, ends_at, opening_minor, sales,
        sales_minor, cancels, cancels_minor, refunds, refunds_minor, fees_minor, fees_returned_minor, net_minor,
        paid_out_minor, closing_minor)
    select id, merchant_id, $1, currency, starts_at, ends_at, opening_minor, sales, sales_minor, cancels, cancels_minor,
        refunds, refunds_minor, fees_minor, fees_returned_minor, net_minor, greatest(opening_minor + net_minor, 0),
        least(opening_minor + net_minor, 0)
    from figures
    returning id, merchant_id, currency, paid_out_minor
), paid as (
    insert into transfer (kind, source_id, debit_account_id, credit_account_id, amount_minor, currency, merchant_id,
        created_at)
    select 'settlement', s.id, m.account_id, h.id, s.paid_out_minor, s.currency, m.id, now()
    from stated s
    join merchant m on m.id = s.merchant_id
    join account h on h.kind = 'house' and h.name = 'settlement' and h.currency = s.currency
    where s.paid_out_minor > 0
)
select count(*) from stated;

-- name: statements
select s.merchant_id, m.name as merchant_name, s.currency,
    to_char(s.starts_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as starts_at,
    to_char(s.ends_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as ends_at,
    s.opening_minor, s.sales, s.sales_minor, s.cancels, s.cancels_minor, s.refunds, s.refunds_minor, s.fees_minor,
    s.fees_returned_minor, s.net_minor, s.paid_out_minor, s.closing_minor
from settlement s join merchant m on m.id = s.merchant_id
where s.business_date = $1
order by s.merchant_id;
