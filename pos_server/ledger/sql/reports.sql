-- part: listed_payment
-- The condition for a merchant's ($1) payments in a list: status, period of the last change, and position after the
-- last payment of the previous page. The table's alias is p.
p.merchant_id = $1 and ($4::text is null or p.status = $4)
    and p.changed_at >= coalesce($5::timestamptz, '-infinity') and p.changed_at < coalesce($6::timestamptz, 'infinity')
    and (p.changed_at, p.id) < (coalesce($7::timestamptz, 'infinity'),
        coalesce($8::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))

-- name: merchant_payments
-- A page of a merchant's payments, latest change first: the last payments of each of its terminals and of its back
-- office, merged. So payments need no index by merchant, and a page costs the same however many payments there are.
-- First, a few payments of each terminal are read to find the earliest time that the page can reach, which limits the
-- second read.
with listed_terminal as materialized (
    select t.number from terminal t join store s on s.id = t.store_id
    where s.merchant_id = $1 and ($2::bigint is null or s.id = $2) and ($3::bigint is null or t.number = $3)
), share as (
    select least($9::bigint, 1 + 2 * $9 / greatest(count(*), 1)) as payments from listed_terminal
), newest as (
    select l.changed_at from listed_terminal t cross join lateral (
        select p.changed_at from payment p where p.terminal_number = t.number and {listed_payment}
        order by p.changed_at desc limit (select payments from share)
    ) as l
), oldest as materialized (
    select coalesce((select changed_at from newest order by changed_at desc offset $9 - 1 limit 1), '-infinity') as at
)
select {payment_columns}, p.changed_at
from (
    select l.* from listed_terminal t cross join lateral (
        select p.* from payment p
        where p.terminal_number = t.number and {listed_payment} and p.changed_at >= (select at from oldest)
        order by p.changed_at desc, p.id desc limit $9
    ) as l
    union all
    select l.* from (
        select p.* from payment p
        where p.terminal_number is null and $2::bigint is null and $3::bigint is null and {listed_payment}
        order by p.changed_at desc, p.id desc limit $9
    ) as l
) as p
order by p.changed_at desc, p.id desc limit $9;

-- name: merchant_payments_of_order
-- The same for one order ($10), whose few payments are found by two indexes.
select {payment_columns}, p.changed_at
from (
    select p.* from payment p
    where p.merchant_id = $1 and p.reference = $10 and p.status in ('pending', 'approved', 'canceled')
    union all
    select p.* from payment p
    where p.merchant_id = $1 and p.reference = $10 and p.status in ('declined', 'expired')
) as p
where {listed_payment} and ($3::bigint is null or p.terminal_number = $3)
    and ($2::bigint is null or exists (select from terminal t where t.number = p.terminal_number and t.store_id = $2))
order by p.changed_at desc, p.id desc limit $9;

-- name: merchant_payments_not_approved
-- The same for a status other than approved, by an index of these payments: among many approved ones they are rare.
select {payment_columns}, p.changed_at
from payment p
where p.status <> 'approved' and p.status = $4 and {listed_payment}
    and ($3::bigint is null or p.terminal_number = $3)
    and ($2::bigint is null or exists (select from terminal t where t.number = p.terminal_number and t.store_id = $2))
order by p.changed_at desc, p.id desc limit $9;

-- name: payment_refunds
-- A page of a payment's refunds, oldest first.
select {refund_columns}, r.created_at
from refund r
where r.payment_id = $2 and r.merchant_id = $1 and (r.created_at, r.id) > (coalesce($3::timestamptz, '-infinity'),
    coalesce($4::uuid, '00000000-0000-0000-0000-000000000000'))
order by r.created_at, r.id limit $5;

-- name: shift_terminal
-- The terminal of a merchant's shift.
select s.terminal_number from shift s
join terminal t on t.number = s.terminal_number
join store st on st.id = t.store_id
where s.id = $2 and st.merchant_id = $1;

-- name: merchant_shifts
-- A page of a merchant's shifts, most recently opened first: the last shifts of each of its terminals, merged.
select s.id, s.number, s.terminal_number, s.operator, m.currency, s.opened_at, s.closed_at, s.opening_cash_minor,
    s.counted_cash_minor
from merchant m
join store st on st.merchant_id = m.id
join terminal t on t.store_id = st.id
cross join lateral (
    select * from shift s
    where s.terminal_number = t.number
        and (s.opened_at, s.id) < (coalesce($3::timestamptz, 'infinity'),
            coalesce($4::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
    order by s.opened_at desc, s.id desc limit $5
) as s
where m.id = $1 and ($2::bigint is null or t.number = $2)
order by s.opened_at desc, s.id desc limit $5;

-- name: limit_statements
-- Sets the timeout of each statement in this transaction, in milliseconds.
select set_config('statement_timeout', $1, true);

-- name: merchant_statements
-- A page of a merchant's statements, latest day first: those of one day ($2), or those before a day ($3).
select business_date, currency, starts_at, ends_at, opening_minor, sales, sales_minor, cancels, cancels_minor, refunds,
    refunds_minor, fees_minor, fees_returned_minor, net_minor, paid_out_minor, closing_minor
from settlement
where merchant_id = $1 and ($2::date is null or business_date = $2) and business_date < coalesce($3::date, 'infinity')
order by business_date desc limit $4;
