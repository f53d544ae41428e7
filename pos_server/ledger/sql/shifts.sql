-- part: shift_figures
-- The totals of a shift by kind (number and sum). The table's alias is s. Its payments are found among those of its
-- terminal since the shift opened. The hour allows for differences between servers' clocks; a larger one would reject
-- all codes.
(select coalesce(jsonb_object_agg(kind, jsonb_build_array(count, amount_minor)), '{}') from (
    select kind, count(*) as count, sum(amount_minor) as amount_minor from (
        select case when p.approved_at is null then p.status else p.purpose end as kind, p.amount_minor
        from payment p
        where p.terminal_number = s.terminal_number and p.changed_at >= s.opened_at - interval '1 hour'
            and p.shift_id = s.id
        union all
        select p.purpose || '_cancel', p.amount_minor from payment p
        where p.canceled_shift_id = s.id and p.merchant_id = s.merchant_id
        union all
        select 'refund', r.amount_minor from refund r where r.shift_id = s.id and r.merchant_id = s.merchant_id
    ) as done group by kind
) as figures)

-- name: lock_terminal
-- Waits for operations that are being added to its shift, and blocks further ones until this transaction ends.
select status, shift_id from terminal where number = $1 for no key update;

-- name: shift_opened
-- The shift with this id at any terminal of the merchant.
select h.terminal_number, h.operator, h.opening_cash_minor
from terminal t join store s on s.id = t.store_id join shift h on h.id = $1 and h.merchant_id = s.merchant_id
where t.number = $2;

-- name: open_shift
-- Does nothing if a shift with this id exists, at any terminal of the merchant.
with opened as (
    insert into shift (id, merchant_id, terminal_number, number, operator, opening_cash_minor, opened_at)
    select $1, (select s.merchant_id from terminal t join store s on s.id = t.store_id where t.number = $2), $2,
        coalesce(max(number), 0) + 1, $3, $4, from_unix_ms($5)
    from shift where terminal_number = $2
    on conflict (id, merchant_id) do nothing
    returning id, terminal_number
)
update terminal t set shift_id = o.id from opened o where t.number = o.terminal_number;

-- name: shift_to_close
select s.closed_at is not null as closed, s.counted_cash_minor, exists (
    select from payment p where p.status = 'pending' and p.terminal_number = s.terminal_number and p.shift_id = s.id
) as payment_pending
from shift s where s.id = $1 and s.terminal_number = $2;

-- name: close_shift
with closed as (
    update shift set closed_at = from_unix_ms($3), counted_cash_minor = $4
    where id = $1 and terminal_number = $2
)
update terminal set shift_id = null where number = $2 and shift_id = $1;

-- name: sum_up_shift
-- A closed shift gets no more payments, so the totals are the same whenever they are computed.
update shift s set figures = {shift_figures} where s.id = $1 and s.terminal_number = $2
    and s.closed_at is not null and s.figures is null;

-- name: sum_up_shifts
-- All closed shifts whose totals were not stored yet, because the server was killed during the close.
update shift s set figures = {shift_figures} where s.closed_at is not null and s.figures is null;

-- name: open_shift_before
select terminal_number from shift where closed_at is null and opened_at < $1 order by terminal_number limit 1;

-- name: shift
select s.id, s.number, s.terminal_number, m.name as merchant_name, st.name as store_name, s.operator, m.currency,
    s.opening_cash_minor, unix_ms(s.opened_at) as opened_at_ms, unix_ms(s.closed_at) as closed_at_ms,
    s.counted_cash_minor, to_char(s.opened_at at time zone m.time_zone, 'YYYY-MM-DD HH24:MI') as opened_local,
    to_char(coalesce(s.closed_at, from_unix_ms($3)) at time zone m.time_zone, 'YYYY-MM-DD HH24:MI') as made_local,
    coalesce(s.figures, {shift_figures}) as figures
from terminal t
join shift s on s.id = coalesce($2, t.shift_id) and s.terminal_number = t.number
join store st on st.id = t.store_id
join merchant m on m.id = st.merchant_id
where t.number = $1;
