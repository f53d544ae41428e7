-- Every SQL statement the server runs, by name. `ledger/sql.py` loads them.

-- part: payment_columns
-- What ledger/rows.py makes a payment of; the table is called p.
p.id, p.fingerprint, p.terminal_number, p.merchant_id, p.wallet_number as payment_wallet_number,
    p.reference, p.amount_minor, p.currency, p.status as payment_status, p.decline_code, p.paid_by,
    p.version as payment_version, unix_ms(p.changed_at) as changed_at_ms, unix_ms(p.approved_at) as approved_at_ms,
    unix_ms(p.expires_at) as expires_at_ms, p.pin_failures as payment_pin_failures, p.refunded_minor, p.refunds,
    p.purpose, p.fee_minor, p.shift_id, p.canceled_shift_id

-- part: wallet_columns
-- And a wallet; the table is called w. Its limits are null, and nothing to decode, where it has none of its own.
w.number as wallet_number, w.account_id, w.currency as wallet_currency, w.balance_minor,
    w.status as wallet_status, w.version as wallet_version, w.pin_hash is not null as pin_set, w.pin_generation, w.pin_failures,
    unix_ms(w.pin_locked_until) as pin_locked_until_ms, unix_ms(w.day_start) as day_start_ms,
    w.day_spent_minor, w.day_pin_free_minor, w.day_pin_free_count,
    case when coalesce(w.payment_minor_max, w.day_minor_max, w.pin_free_minor_max, w.pin_free_day_count_max,
        w.pin_free_day_minor_max, w.top_up_minor_max, w.balance_minor_max) is not null then jsonb_build_object(
        'payment_minor_max', w.payment_minor_max, 'day_minor_max', w.day_minor_max,
        'pin_free_minor_max', w.pin_free_minor_max, 'pin_free_day_count_max', w.pin_free_day_count_max,
        'pin_free_day_minor_max', w.pin_free_day_minor_max, 'top_up_minor_max', w.top_up_minor_max,
        'balance_minor_max', w.balance_minor_max) end as wallet_limits

-- part: shift_figures
-- What was done in a shift by kind: how many and how much; the table is called s. Its payments are those of its terminal
-- since then. No server's clock is an hour off: it would take no payment codes.
(select coalesce(jsonb_object_agg(kind, jsonb_build_array(count, amount_minor)), '{}') from (
    select kind, count(*) as count, sum(amount_minor) as amount_minor from (
        select case when p.approved_at is null then p.status else p.purpose end as kind, p.amount_minor
        from payment p
        where p.terminal_number = s.terminal_number and p.changed_at >= s.opened_at - interval '1 hour'
            and p.shift_id = s.id
        union all
        select p.purpose || '_cancel', p.amount_minor from payment p where p.canceled_shift_id = s.id
        union all
        select 'refund', r.amount_minor from refund r where r.shift_id = s.id
    ) as done group by kind
) as figures)

-- name: load_book
-- All a batch of operations needs, one row each: the till that asks, the payment of that id or else the one that occupies
-- the order, its till, and the wallet: the payment's, or else that of the code, with the device that made the code. Of an
-- archived payment only that it is one, and the order that it occupies; in one snapshot with the live rows, so that a
-- payment is found in one of the two places while it moves.
-- The `limit`s keep the planner from joining whole tables: it plans once, perhaps while they are still empty. Each join
-- prepares every column that it hands on, which is most of the work for a lone payment: so what is wide comes last, or as
-- one value.
select
    q.position,
    t.number as till_number, t.status as terminal_status, t.shift_id as terminal_shift_id, s.name as store_name,
    m.id as till_merchant_id, m.currency as till_currency,
    m.status as merchant_status, m.account_id as merchant_account_id, m.name as merchant_name, m.fee_bps, m.fee_fixed_minor,
    case when p.terminal_number <> t.number and p.merchant_id = m.id then (
        select row(pt.number, pt.status, pt.shift_id, ps.name)::other_till
        from terminal pt join store ps on ps.id = pt.store_id where pt.number = p.terminal_number
    ) end as other_till,
    {wallet_columns},
    d.wallet_number as device_wallet_number, d.slot, d.kid, d.generation, d.status as device_status,
    d.spent_mark,
    p.payment,
    coalesce(o.id, ao.id) as open_payment_id, coalesce(o.status, ao.status) as open_payment_status,
    ao.id as archived_order_id,
    (select a.id from archived_name a where a.id = q.payment_id) as archived_payment_id
from unnest($1::operation_key[]) with ordinality
    as q (payment_id, terminal_number, merchant_id, reference, wallet_number, slot, position)
left join lateral (
    select o.id, o.status from payment o
    where o.merchant_id = q.merchant_id and o.reference = q.reference and o.status in ('pending', 'approved', 'canceled')
    limit 1
) as o on true
left join lateral (
    select a.id, a.status from archived_name a where a.merchant_id = q.merchant_id and a.reference = q.reference limit 1
) as ao on true
left join lateral (
    select f.terminal_number, f.merchant_id, f.payment_wallet_number, f::stored_payment as payment
    from (select {payment_columns} from payment p where p.id = coalesce(q.payment_id, o.id) limit 1) as f
) as p on true
left join terminal t on t.number = coalesce(q.terminal_number, p.terminal_number)
left join store s on s.id = t.store_id
left join merchant m on m.id = coalesce(s.merchant_id, p.merchant_id, q.merchant_id)
left join lateral (
    select * from wallet_device d where d.wallet_number = q.wallet_number and d.slot = q.slot limit 1
) as d on true
left join lateral (
    select * from wallet w where w.number = coalesce(p.payment_wallet_number, q.wallet_number) limit 1
) as w on true;

-- part: refund_columns
r.id, r.payment_id, r.merchant_id, r.terminal_number, r.wallet_number, r.amount_minor, r.currency,
    unix_ms(r.created_at) as created_at_ms, r.shift_id

-- name: load_refunds
-- What is known of these ids: a refund, or that it is archived.
select {refund_columns}, a.id as archived_id
from unnest($1::uuid[]) as q (id)
left join lateral (select * from refund r where r.id = q.id limit 1) as r on true
left join lateral (select a.id from archived_refund a where a.id = q.id limit 1) as a on true;

-- part: wallets_applied
-- Wallets, each only if its version is still the one the decision saw, and devices' spent codes. What is locked carries its
-- changes along, so that no part joins two others: with some statistics the planner would compare all of a batch with all
-- of it. Each `between` is always true. It makes the planner expect one row, for which it goes by the index, as is best for
-- a batch too, whatever the table held when the statement was planned.
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
        wallet_number, created_at)
    select x.*, from_unix_ms($4) from unnest($5::new_transfer[]) as x
)

-- part: shift_lock
-- What is added to a shift locks the terminal that it is open at: it is closed before or after.
cross join lateral (
    select t.number from terminal t where t.number = c.terminal_number and t.shift_id = c.shift_id limit 1 for share
) as l

-- part: lost_guards
when (select count(*) from moved) <> cardinality($1) then ledger_conflict('wallet version')
    when (select count(*) from spent) <> cardinality($2) then ledger_conflict('spent code')
    when (select count(*) from shift_locked) <> cardinality($6) then ledger_conflict('shift closed')

-- name: apply_new_payments
-- Everything a batch decided, in one statement and so in one commit, for a batch that changes no stored payment. A lost
-- guard, or a payment id or order that another server stored meanwhile, undoes all of it.
with {wallets_applied}, {payments_and_transfers_added}, shift_locked as materialized (
    select l.number from (
        select * from unnest($6::joined_shift[]) where (select count(*) from locked) >= 0 order by terminal_number
    ) as c
    {shift_lock}
)
select case {lost_guards} else true end;

-- name: apply_changes
-- The same for a batch that changes stored payments too, or refunds them. Locked are wallets, then payments, then terminals.
with {wallets_applied}, payment_locked as materialized (
    select c.* from (
        select * from unnest($3::payment_change[])
        where seen_version between 1 and 2147483647 and (select count(*) from locked) >= 0 order by payment_id
    ) as c
    cross join lateral (
        select from payment p where p.id = c.payment_id and p.version = c.seen_version limit 1 for no key update
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
    where p.id = c.payment_id and p.version = c.seen_version
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
select case {lost_guards}
    when (select count(*) from changed)
        <> (select count(*) from unnest($3::payment_change[]) where seen_version > 0)
        then ledger_conflict('payment version')
    else true end;

-- name: terminal_to_authenticate
select t.kid, t.generation, s.name as store_name, m.id as merchant_id, m.name as merchant_name, m.currency, t.shift_id
from terminal t join store s on s.id = t.store_id join merchant m on m.id = s.merchant_id
where t.number = $1;

-- name: wallet_device_to_authenticate
select case when d.status = 'active' then d.kid end as kid, d.generation, w.currency
from wallet_device d join wallet w on w.number = d.wallet_number
where d.wallet_number = $1 and d.slot = $2;

-- name: terminal_payments_since
-- What a till may have missed, oldest first.
select {payment_columns}
from payment p where p.terminal_number = $1 and p.changed_at > to_timestamp($2::bigint / 1000.0)
order by p.changed_at, p.id limit $3;

-- name: wallet_payments_since
-- What a wallet may have missed, oldest first, with the names it shows.
select {payment_columns},
    m.name as merchant_name, coalesce(s.name, '') as store_name
from payment p
left join terminal t on t.number = p.terminal_number
left join store s on s.id = t.store_id
join merchant m on m.id = p.merchant_id
where p.wallet_number = $1 and p.changed_at > to_timestamp($2::bigint / 1000.0)
order by p.changed_at, p.id limit $3;

-- name: payment_by_id
select {payment_columns}
from payment p where p.id = $2 and p.merchant_id = $1;

-- name: payment_by_reference
-- The payment that occupies the order, or else the one that failed last.
(select {payment_columns}
from payment p
where p.merchant_id = $1 and p.reference = $2 and p.status in ('pending', 'approved', 'canceled'))
union all
(select {payment_columns}
from payment p
where p.merchant_id = $1 and p.reference = $2 and p.status in ('declined', 'expired')
order by p.changed_at desc limit 1)
limit 1;

-- name: archived_payment
-- Whether a merchant's payment of this id, or the one that occupies this order, is in the archive.
select exists (select from archived_name where id = $2 and merchant_id = $1)
    or exists (select from archived_name where merchant_id = $1 and reference = $3);

-- name: terminal_recent
select {payment_columns}
from payment p where p.terminal_number = $1
order by p.changed_at desc, p.id desc limit $2;

-- part: listed_payment
-- Which payments of a merchant ($1) a list shows: of this status, changed since and until, after the one that ended the
-- page before; the table is called p.
p.merchant_id = $1 and ($4::text is null or p.status = $4)
    and p.changed_at >= coalesce($5::timestamptz, '-infinity') and p.changed_at < coalesce($6::timestamptz, 'infinity')
    and (p.changed_at, p.id) < (coalesce($7::timestamptz, 'infinity'),
        coalesce($8::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))

-- name: merchant_payments
-- A page of a merchant's payments, latest change first: the last ones of each of its terminals, merged, and of what no
-- terminal did. So payments need no index by their merchant, and a page costs the same however many there are. A first
-- look at a few of each terminal tells how far back the page can reach at most, which spares the others.
with asked_terminal as materialized (
    select t.number from terminal t join store s on s.id = t.store_id
    where s.merchant_id = $1 and ($2::bigint is null or s.id = $2) and ($3::bigint is null or t.number = $3)
), share as (
    select least($9::bigint, 1 + 2 * $9 / greatest(count(*), 1)) as payments from asked_terminal
), newest as (
    select l.changed_at from asked_terminal t cross join lateral (
        select p.changed_at from payment p where p.terminal_number = t.number and {listed_payment}
        order by p.changed_at desc limit (select payments from share)
    ) as l
), oldest as materialized (
    select coalesce((select changed_at from newest order by changed_at desc offset $9 - 1 limit 1), '-infinity') as at
)
select {payment_columns}, p.changed_at
from (
    select l.* from asked_terminal t cross join lateral (
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
-- The same of one order ($10): two indexes find its few payments.
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

-- name: payment_refunds
-- A page of a payment's refunds, oldest first.
select {refund_columns}, r.created_at
from refund r
where r.payment_id = $1 and (r.created_at, r.id) > (coalesce($2::timestamptz, '-infinity'),
    coalesce($3::uuid, '00000000-0000-0000-0000-000000000000'))
order by r.created_at, r.id limit $4;

-- name: wallet_history
-- A page of a wallet's payments, latest change first, after the one that ended the page before.
select {payment_columns},
    m.name as merchant_name, coalesce(s.name, '') as store_name
from payment p
left join terminal t on t.number = p.terminal_number
left join store s on s.id = t.store_id
join merchant m on m.id = p.merchant_id
where p.wallet_number = $1 and ($2::bigint is null or (p.changed_at, p.id) < (from_unix_ms($2), $3::uuid))
order by p.changed_at desc, p.id desc limit $4;

-- name: wallet_pending
-- What waits for this wallet's PIN, oldest first.
select {payment_columns},
    m.name as merchant_name, coalesce(s.name, '') as store_name
from payment p
left join terminal t on t.number = p.terminal_number
left join store s on s.id = t.store_id
join merchant m on m.id = p.merchant_id
where p.wallet_number = $1 and p.status = 'pending'
order by p.changed_at, p.id limit $2;

-- name: wallet
select {wallet_columns}
from wallet w where w.number = $1;

-- name: wallet_pin
select pin_hash, pin_kid, pin_generation, unix_ms(pin_locked_until) as pin_locked_until_ms, pin_request_id,
    pin_request_done
from wallet where number = $1;

-- name: pin_is_asked_for
select exists (
    select from payment where id = $2 and wallet_number = $1 and version = $3 and status = 'pending'
);

-- name: set_pin
-- Only while the PIN is still the one that was checked. The version moves: a payment decided with the old PIN is decided
-- again.
update wallet set pin_hash = $3, pin_kid = $4, pin_generation = pin_generation + 1, pin_failures = 0,
    pin_locked_until = 'epoch', pin_request_id = $5, pin_request_done = true, version = version + 1
where number = $1 and pin_generation = $2 returning pin_generation;

-- name: count_wrong_pin
-- A wrong old PIN counts like one for a payment.
update wallet set pin_failures = case when pin_failures + 1 < $3 then pin_failures + 1 else 0 end,
    pin_locked_until = case when pin_failures + 1 < $3 then pin_locked_until else from_unix_ms($4) end,
    pin_request_id = $5, pin_request_done = false, version = version + 1
where number = $1 and pin_generation = $2;

-- name: terminal_to_open_shift
-- Waits for what is being added to its shift, and keeps the next from being added until this commits.
select status, shift_id from terminal where number = $1 for no key update;

-- name: shift_opened
select terminal_number, operator, opening_cash_minor from shift where id = $1;

-- name: open_shift
-- Nothing if there has been a shift of this id, wherever.
with opened as (
    insert into shift (id, terminal_number, number, operator, opening_cash_minor, opened_at)
    select $1, $2, coalesce(max(number), 0) + 1, $3, $4, from_unix_ms($5) from shift where terminal_number = $2
    on conflict (id) do nothing
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
    update shift set closed_at = from_unix_ms($3), counted_cash_minor = $4 where id = $1
)
update terminal set shift_id = null where number = $2 and shift_id = $1;

-- name: sum_up_shift
-- A shift that is closed gets no more payments: whoever sums it up, and whenever, finds the same.
update shift s set figures = {shift_figures} where s.id = $1 and s.closed_at is not null and s.figures is null;

-- name: sum_up_shifts
-- Those that nobody has looked at since their close was cut short.
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

-- name: shift_terminal
-- Where a merchant's shift is or was.
select s.terminal_number from shift s
join terminal t on t.number = s.terminal_number
join store st on st.id = t.store_id
where s.id = $2 and st.merchant_id = $1;

-- name: merchant_shifts
-- A page of a merchant's shifts, opened last first: the last ones of each of its terminals, merged.
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
-- How long each statement of this transaction may take, in milliseconds.
select set_config('statement_timeout', $1, true);

-- name: payments_to_expire
select id from payment where status = 'pending' and expires_at <= from_unix_ms($1) order by expires_at limit $2;

-- name: tell_peers
select pg_notify('pos_peers', payload) from unnest($1::text[]) as payload;

-- name: join_peers
select pg_advisory_lock_shared($1, $2);

-- name: has_peers
-- Whether another session shares that lock.
select exists (
    select from pg_locks
    where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())
        and classid = $1::bigint::oid and objid = $2::bigint::oid and objsubid = 2 and pid <> pg_backend_pid()
);

-- name: try_lead
-- Session-level: it is held until the connection ends.
select pg_try_advisory_lock($1);

-- name: set_wallet_status
-- The version moves, so that no payment decided before slips in behind this.
update wallet set status = $2, version = version + 1 where number = $1 returning number;

-- name: set_terminal_status
update terminal set status = $2 where number = $1 returning number;

-- name: set_merchant_status
update merchant set status = $2 where id = $1 returning id;

-- name: set_terms
update merchant m set fee_bps = coalesce($2, fee_bps), fee_fixed_minor = coalesce($3, fee_fixed_minor),
    time_zone = coalesce($4, time_zone), cut_off = coalesce($5, cut_off)
where id = $1 returning {merchant_columns};

-- name: reset_pin
-- The wallet has no PIN after this: the customer sets a new one.
update wallet set pin_hash = null, pin_kid = null, pin_generation = pin_generation + 1, pin_failures = 0,
    pin_locked_until = 'epoch', pin_request_id = null, pin_request_done = false, version = version + 1
where number = $1 returning number;

-- name: device_generations
-- The generation of each device's key now; 0 when it is revoked.
select coalesce(t.generation, case when d.status = 'active' then d.generation end, 0) as generation
from unnest($1::text[], $2::bigint[], $3::smallint[]) with ordinality as q (kind, number, slot, position)
left join terminal t on q.kind = 'terminal' and t.number = q.number
left join wallet_device d on q.kind = 'wallet' and d.wallet_number = q.number and d.slot = q.slot
order by q.position;

-- name: create_account
insert into account (kind, name, currency) values ($1, $2, $3) returning id;

-- name: house_accounts
select name, currency, id from account where kind = 'house';

-- name: create_house_accounts
insert into account (kind, name, currency) select 'house', name, $2 from unnest($1::text[]) as name
on conflict (name, currency) where kind = 'house' do nothing;

-- name: create_merchant
insert into merchant (account_id, name, currency) values ($1, $2, $3) returning id;

-- part: merchant_columns
m.id as merchant_id, m.name, m.currency, m.status, m.fee_bps, m.fee_fixed_minor, m.time_zone, m.cut_off

-- name: merchant
select {merchant_columns} from merchant m where m.id = $1;

-- name: list_merchants
select {merchant_columns} from merchant m where m.id > $1 order by m.id limit $2;

-- name: create_store
insert into store (merchant_id, name) values ($1, $2) returning id;

-- name: stores
-- A merchant's stores after an id, oldest first.
select id as store_id, name from store where merchant_id = $1 and id > $2 order by id limit $3;

-- name: create_terminal
insert into terminal (store_id, name) values ($1, $2) returning number;

-- name: terminals
-- A merchant's terminals after a number, or those of a store of its, oldest first.
select t.number as terminal_number, t.store_id, t.name, t.status, t.generation > 0 as activated, t.shift_id
from terminal t join store s on s.id = t.store_id
where s.merchant_id = $1 and t.number > $2 and ($4::bigint is null or s.id = $4)
order by t.number limit $3;

-- name: create_wallet
insert into wallet (account_id, name, currency) values ($1, $2, $3) returning number;

-- name: create_wallet_device
insert into wallet_device (wallet_number, slot) values ($1, $2) on conflict do nothing;

-- name: create_activation
insert into activation (code_hash, kind, number, slot, expires_at)
values ($1, $2, $3, $4, now() + make_interval(secs => $5)) returning expires_at;

-- name: activation_to_use
select kind, number, slot, request_id, kid, generation
from activation where code_hash = $1 and expires_at > now()
for update;

-- name: use_activation
update activation set request_id = $2, kid = $3, generation = $4 where code_hash = $1;

-- name: rekey_terminal
update terminal set kid = $2, generation = generation + 1 where number = $1 returning generation;

-- name: rekey_wallet_device
-- The wallet's version moves too, so that a payment decided with the old key does not slip in behind this. A new key
-- makes new codes, of which none is spent.
with moved as (update wallet set version = version + 1 where number = $1)
update wallet_device set kid = $3, generation = generation + 1, status = 'active', spent_mark = 0
where wallet_number = $1 and slot = $2 returning generation;

-- name: device_generation
select generation from terminal where $1 = 'terminal' and number = $2
union all
select generation from wallet_device where $1 = 'wallet' and wallet_number = $2 and slot = $3;

-- name: terminal_label
select t.name, m.currency from terminal t join store s on s.id = t.store_id join merchant m on m.id = s.merchant_id
where t.number = $1;

-- name: wallet_label
select name, currency from wallet where number = $1;

-- name: api_key
select k.id, k.role, k.merchant_id, m.currency,
    coalesce(k.last_used_at < now() - interval '1 minute', true) as use_is_old
from api_key k left join merchant m on m.id = k.merchant_id
where k.key_hash = $1 and (k.ends_at is null or k.ends_at > now());

-- name: api_key_used
update api_key set last_used_at = now() where id = $1;

-- name: create_api_key
insert into api_key (key_hash, role, merchant_id, name) values ($1, $2, $3, $4) returning id;

-- name: end_api_key
update api_key set ends_at = least(ends_at, now() + make_interval(secs => $2)) where id = $1 returning id;

-- name: list_api_keys
select k.id, k.role, k.merchant_id, m.name as merchant_name, k.name, k.created_at, k.last_used_at, k.ends_at
from api_key k left join merchant m on m.id = k.merchant_id
where k.id > $1
order by k.id limit $2;

-- name: try_idempotency_key
-- Until the transaction ends. Two keys with one hash wait for each other in vain, once in 2^63.
select pg_try_advisory_xact_lock(hashtextextended($1 || chr(31) || $2, 0));

-- name: idempotency_key
select fingerprint, answer, kid from idempotency_key where tenant = $1 and key = $2;

-- name: keep_idempotency_key
insert into idempotency_key (tenant, key, fingerprint, answer, kid) values ($1, $2, $3, $4, $5);

-- part: wallet_shown_columns
w.number as wallet_number, w.name, w.currency, w.balance_minor, w.status, w.pin_hash is not null as pin_set,
    case when w.pin_locked_until > now() then w.pin_locked_until end as pin_locked_until

-- name: wallet_shown
select {wallet_shown_columns} from wallet w where w.number = $1;

-- name: list_wallets
select {wallet_shown_columns} from wallet w where w.number > $1 order by w.number limit $2;

-- part: limit_columns
payment_minor_max, day_minor_max, pin_free_minor_max, pin_free_day_count_max, pin_free_day_minor_max, top_up_minor_max,
    balance_minor_max

-- name: own_limits
select {limit_columns} from wallet where number = $1;

-- name: own_limits_to_change
select {limit_columns} from wallet where number = $1 for no key update;

-- name: set_own_limits
-- The version moves, so that no payment decided before slips in behind this.
update wallet set payment_minor_max = $2, day_minor_max = $3, pin_free_minor_max = $4, pin_free_day_count_max = $5,
    pin_free_day_minor_max = $6, top_up_minor_max = $7, balance_minor_max = $8, version = version + 1
where number = $1;

-- name: wallet_devices
select slot, case when status = 'revoked' then status when generation = 0 then 'unused' else 'active' end as status
from wallet_device where wallet_number = $1 order by slot;

-- name: wallet_to_change
select number from wallet where number = $1 for no key update;

-- name: free_slot
-- A slot whose code is on its way to somebody is not given to somebody else.
select slot from generate_series(0, $2::int) as slot
where not exists (
        select from wallet_device d
        where d.wallet_number = $1 and d.slot = slot.slot and d.status = 'active' and d.generation > 0
    ) and not exists (
        select from activation a
        where a.kind = 'wallet' and a.number = $1 and a.slot = slot.slot and a.request_id is null and a.expires_at > now()
    )
order by slot limit 1;

-- name: end_activations
update activation set expires_at = now() where kind = $1 and number = $2 and slot = $3 and expires_at > now();

-- name: revoke_wallet_device
-- Once. The wallet's version moves, so that no payment decided with the old key slips in behind this.
with moved as (update wallet set version = version + 1 where number = $1)
update wallet_device set generation = generation + case status when 'active' then 1 else 0 end, status = 'revoked'
where wallet_number = $1 and slot = $2 returning generation;

-- name: payment_of_purpose
select {payment_columns}
from payment p where p.id = $1 and p.purpose = $2;

-- name: is_archived
select exists (select from archived_name where id = $1);

-- name: wallet_transfers
-- A wallet's transfers, newest first, each with what it left in the wallet: counted back from the balance of the same
-- snapshot, so the newest left just that, and the oldest started from what is archived, which comes last as one.
-- A page costs all that the wallet has in the ledger, whichever page it is: its payments by payment_wallet, two probes of
-- transfer_source for each that moved money and one for each refund. That is what finding them without an index of their
-- own costs, which every payment would pay for. The limits and offsets keep the planner from joining whole tables.
with held as (
    select account_id, balance_minor from wallet where number = $1
), moved as (
    select x.id, x.kind, x.created_at, p.id as payment_id, p.merchant_id,
        case when x.credit_account_id = h.account_id then x.amount_minor else -x.amount_minor end as amount_minor,
        case when x.credit_account_id = h.account_id then x.debit_account_id else x.credit_account_id end as other_id
    from held h
    cross join lateral (
        select p.id, p.merchant_id, p.refunds from payment p where p.wallet_number = $1 and p.approved_at is not null
        offset 0
    ) as p
    cross join lateral (
        (select x.* from transfer x
        where x.source_id = p.id and x.kind in ('payment', 'top_up', 'withdrawal', 'cancel') limit 2)
        union all
        select x.* from (select r.id from refund r where p.refunds > 0 and r.payment_id = p.id offset 0) as r
        cross join lateral (select x.* from transfer x where x.source_id = r.id and x.kind = 'refund' limit 1) as x
    ) as x
), told as (
    select m.*, (h.balance_minor - coalesce(sum(m.amount_minor) over newer, 0))::bigint as balance_minor
    from held h cross join moved m
    window newer as (order by m.id desc rows between unbounded preceding and 1 preceding)
    union all
    select 0, 'archived', null, null, null, b.balance_minor, null, b.balance_minor
    from held h join archived_balance b on b.account_id = h.account_id
)
select t.id, t.kind, t.created_at, t.payment_id, t.merchant_id, t.amount_minor, t.balance_minor,
    case a.kind when 'house' then 'house' else a.name end as counterpart
from (select * from told where $2::bigint is null or id < $2 order by id desc limit $3) as t
left join account a on a.id = t.other_id
order by t.id desc;

-- name: audit_counts
select (select count(*) from transfer) as transfers, (select count(*) from payment where purpose = 'sale') as payments,
    (select count(*) from payment where purpose <> 'sale') as cash_movements,
    (select count(*) from wallet) as wallets,
    (select coalesce(sum(payments), 0)::bigint from archive_part) as archived_payments;

-- name: audit_accounts_exist
-- A transfer's two accounts exist and hold its currency. With that, debits and credits cancel out per currency.
select x.id::text from transfer x
left join account d on d.id = x.debit_account_id and d.currency = x.currency
left join account c on c.id = x.credit_account_id and c.currency = x.currency
where d.id is null or c.id is null
order by x.id limit $1;

-- name: audit_sum_is_zero
-- Over the accounts that exist, credits less debits are zero per currency, archived ones included.
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
-- A wallet's balance is what its account was credited less what it was debited, archived transfers included.
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
where w.balance_minor <> coalesce(e.balance_minor, 0)
order by w.number limit $1;

-- name: audit_payments_paid
-- A payment that was ever approved has its one transfer: of its purpose's kind, same amount, currency and wallet, between
-- the accounts that its purpose names.
select p.id::text from (
    select p.id, p.amount_minor, p.currency, p.wallet_number,
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
left join transfer x on x.source_id = p.id and x.kind = p.kind and x.amount_minor = p.amount_minor
    and x.currency = p.currency and x.wallet_number = p.wallet_number
    and x.debit_account_id = p.debit_account_id and x.credit_account_id = p.credit_account_id
where x.id is null
order by p.id limit $1;

-- name: audit_transfers_owed
-- A transfer of a payment belongs to one that was approved, for the same purpose.
select x.id::text from transfer x
left join payment p on p.id = x.source_id and x.kind = case p.purpose when 'sale' then 'payment' else p.purpose end
    and (p.status = 'approved' or (p.status = 'canceled' and p.approved_at is not null))
where x.kind in ('payment', 'top_up', 'withdrawal') and p.id is null
order by x.id limit $1;

-- name: audit_transfers_once
-- What causes a transfer causes it once.
select source_id::text from transfer
group by source_id, kind having count(*) > 1
order by source_id, kind limit $1;

-- name: audit_cancels_paid
-- A payment that was canceled after it was approved has its one cancel transfer, the other way round; and no other
-- payment has one.
select coalesce(p.id, x.source_id)::text from (
    select p.id, t.amount_minor, t.currency, t.wallet_number, t.debit_account_id, t.credit_account_id
    from payment p
    left join transfer t on t.source_id = p.id and t.kind in ('payment', 'top_up', 'withdrawal')
    where p.status = 'canceled' and p.approved_at is not null
) as p
full join (select * from transfer where kind = 'cancel') as x on x.source_id = p.id
    and x.amount_minor = p.amount_minor and x.currency = p.currency and x.wallet_number = p.wallet_number
    and x.debit_account_id = p.credit_account_id and x.credit_account_id = p.debit_account_id
where p.id is null or x.id is null
order by 1 limit $1;

-- name: audit_fees
-- A sale that was ever approved has its one fee transfer if it has a fee; what has gone back of it is what its refunds
-- (the refunded share, rounded down) or its cancel say.
select coalesce(p.id, f.id)::text from (
    select p.id, p.fee_minor, m.account_id as merchant_account_id, h.id as fees_account_id,
        case when p.status = 'canceled' then p.fee_minor
            else (p.fee_minor::numeric * p.refunded_minor / p.amount_minor)::numeric end as returned
    from payment p
    left join merchant m on m.id = p.merchant_id
    left join account h on h.kind = 'house' and h.currency = p.currency and h.name = 'fees'
    where p.fee_minor > 0 and (p.status = 'approved' or (p.status = 'canceled' and p.approved_at is not null))
) as p
full join (
    select coalesce(r.payment_id, x.source_id) as id,
        sum(x.amount_minor) filter (where x.kind = 'fee') as paid,
        sum(x.amount_minor) filter (where x.kind = 'fee_return') as returned,
        min(case x.kind when 'fee' then x.debit_account_id else x.credit_account_id end) as low_merchant,
        max(case x.kind when 'fee' then x.debit_account_id else x.credit_account_id end) as high_merchant,
        min(case x.kind when 'fee' then x.credit_account_id else x.debit_account_id end) as low_fees,
        max(case x.kind when 'fee' then x.credit_account_id else x.debit_account_id end) as high_fees
    from transfer x
    left join refund r on x.kind = 'fee_return' and r.id = x.source_id
    where x.kind in ('fee', 'fee_return')
    group by 1
) as f on f.id = p.id
where p.id is null or f.id is null or f.paid is distinct from p.fee_minor
    or coalesce(f.returned, 0) <> floor(p.returned)
    or f.low_merchant <> p.merchant_account_id or f.high_merchant <> p.merchant_account_id
    or f.low_fees <> p.fees_account_id or f.high_fees <> p.fees_account_id
order by 1 limit $1;

-- name: audit_refunds_paid
-- A refund has its one transfer, from the merchant to the wallet of the payment; and every such transfer its refund.
select coalesce(r.id, x.source_id)::text from (
    select r.id, r.amount_minor, r.currency, p.wallet_number, w.account_id as wallet_account_id,
        m.account_id as merchant_account_id
    from refund r
    left join payment p on p.id = r.payment_id and p.currency = r.currency and p.merchant_id = r.merchant_id
        and p.wallet_number = r.wallet_number
    left join merchant m on m.id = p.merchant_id
    left join wallet w on w.number = p.wallet_number
) as r
full join (select * from transfer where kind = 'refund') as x on x.source_id = r.id
    and x.amount_minor = r.amount_minor and x.currency = r.currency and x.wallet_number = r.wallet_number
    and x.debit_account_id = r.merchant_account_id and x.credit_account_id = r.wallet_account_id
where r.id is null or x.id is null
order by 1 limit $1;

-- name: audit_refunds_within
-- What a payment says of its refunds is what they are, and they never exceed it.
select coalesce(p.id, r.payment_id)::text
from (select id, amount_minor, refunded_minor, refunds from payment where refunds > 0 or refunded_minor > 0) as p
full join (
    select payment_id, sum(amount_minor) as refunded_minor, count(*) as refunds from refund group by payment_id
) as r on r.payment_id = p.id
where p.id is null or r.payment_id is null or p.refunded_minor <> r.refunded_minor or p.refunds <> r.refunds
    or p.refunded_minor > p.amount_minor
order by 1 limit $1;

-- name: audit_pending_in_time
-- No payment waits for its PIN long after its time: a minute is more than the sweeper needs.
select p.id::text from payment p
where p.status = 'pending' and p.expires_at < now() - interval '1 minute'
order by p.id limit $1;

-- name: audit_shifts
-- A closed shift's figures are what its payments, cancels and refunds say, all of them of shifts that there are and none
-- waiting; and the open shift of a terminal is the one that the terminal names. What was archived cannot be added up any
-- more, so not the shifts that were opened before the archive's horizon.
with figures as (
    select shift_id, jsonb_object_agg(kind, jsonb_build_array(count, amount_minor)) as figures from (
        select shift_id, kind, count(*) as count, sum(amount_minor) as amount_minor from (
            select shift_id, case when approved_at is null then status else purpose end as kind, amount_minor
            from payment where shift_id is not null
            union all
            select canceled_shift_id, purpose || '_cancel', amount_minor from payment
            where canceled_shift_id is not null
            union all
            select shift_id, 'refund', amount_minor from refund where shift_id is not null
        ) as done group by shift_id, kind
    ) as summed group by shift_id
)
select coalesce(s.id, f.shift_id)::text from shift s
full join figures f on f.shift_id = s.id
left join terminal t on t.number = s.terminal_number
where s.id is null or (s.figures <> coalesce(f.figures, '{}')
        and s.opened_at >= (select coalesce(max(before), '-infinity') from archive_part))
    or (s.closed_at is not null and f.figures ? 'pending')
    or (t.shift_id is not distinct from s.id) <> (s.closed_at is null)
union
select t.shift_id::text from terminal t
where t.shift_id is not null and not exists (select from shift s where s.id = t.shift_id)
order by 1 limit $1;

-- name: last_seal
select number, day, last_id, hash from seal order by number desc limit 1;

-- name: first_transfer_at
select created_at from transfer order by id limit 1;

-- name: last_transfer_before
-- The last transfer of the days before, and the transactions that run while it is read: ids are handed out in order, and
-- committed in any.
select coalesce(max(id), $2) as last_id, array(
    select virtualtransaction from pg_locks where locktype = 'virtualxid' and pid <> pg_backend_pid()
) as running
from transfer where id > $2 and created_at < $1;

-- name: all_ended
select not exists (
    select from pg_locks where locktype = 'virtualxid' and virtualtransaction = any($1::text[])
);

-- name: transfer_digests
select t.id, transfer_digest(t) as digest from transfer t where t.id > $1 and t.id <= $2 order by t.id limit $3;

-- name: add_seal
insert into seal (day, number, first_id, last_id, transfers, digests, previous_hash, hash)
values ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: seals
select number, day::text, first_id, last_id, transfers, digests, previous_hash, hash from seal order by number;

-- name: last_transfer
-- The last transfer, and the transactions that run while it is read.
select coalesce(max(id), 0) as last_id, array(
    select virtualtransaction from pg_locks where locktype = 'virtualxid' and pid <> pg_backend_pid()
) as running
from transfer;

-- name: rollup_horizon
select last_id from rollup_horizon;

-- name: lock_rollup
select last_id from rollup_horizon for update;

-- name: roll_up
-- Adds what lies between the horizon and the new one, and moves the horizon: one commit, so nothing counts twice.
with entry as (
    select credit_account_id as account_id, amount_minor from transfer where id > $1 and id <= $2
    union all
    select debit_account_id, -amount_minor from transfer where id > $1 and id <= $2
), summed as (
    insert into account_rollup as r (account_id, balance_minor)
    select e.account_id, sum(e.amount_minor) from entry e join account a on a.id = e.account_id and a.kind <> 'wallet'
    group by e.account_id
    on conflict (account_id) do update set balance_minor = r.balance_minor + excluded.balance_minor
)
update rollup_horizon set last_id = $2;

-- name: account_balances
-- Sum and tail in one statement, and so in one snapshot.
with tail as (
    select * from transfer where id > (select last_id from rollup_horizon)
), entry as (
    select account_id, sum(amount_minor) as balance_minor from (
        select credit_account_id as account_id, amount_minor from tail
        union all
        select debit_account_id, -amount_minor from tail
    ) as e group by account_id
)
select a.id as account_id, a.kind, a.name as owner, a.currency,
    (coalesce(r.balance_minor, 0) + coalesce(e.balance_minor, 0))::bigint as balance_minor
from account a
left join account_rollup r on r.account_id = a.id
left join entry e on e.account_id = a.id
where a.kind <> 'wallet'
order by a.kind, a.name, a.id;

-- name: merchant_balance
-- The same of one merchant.
select (coalesce(r.balance_minor, 0) + coalesce((
    select sum(case when x.credit_account_id = m.account_id then x.amount_minor else -x.amount_minor end)
    from transfer x
    where x.id > (select last_id from rollup_horizon) and m.account_id in (x.credit_account_id, x.debit_account_id)
), 0))::bigint
from merchant m left join account_rollup r on r.account_id = m.account_id
where m.id = $1;

-- name: audit_rollup
-- The sum up to the horizon is what the transfers up to it say; archived ones are all below it.
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

-- name: settlement_day_ends
-- When a business day is over for the last of the merchants.
select max((($1::date + 1) + cut_off) at time zone time_zone) from merchant;

-- name: first_unsettled_date
-- The first business day up to $1 that some merchant has transfers in and no statement of: the day after its last
-- statement, or that of its first transfer.
with never as (
    select account_id from merchant m where not exists (select from settlement where merchant_id = m.id)
), first as (
    select account_id, min(created_at) as first_at from (
        select credit_account_id as account_id, created_at from transfer where exists (select from never)
        union all
        select debit_account_id, created_at from transfer where exists (select from never)
    ) as entry group by account_id
)
select min(coalesce(s.last_date + 1, (f.first_at at time zone m.time_zone - m.cut_off)::date))
from merchant m
left join (select merchant_id, max(business_date) as last_date from settlement group by merchant_id) as s
    on s.merchant_id = m.id
left join first f on f.account_id = m.account_id and s.merchant_id is null
where coalesce(s.last_date + 1, (f.first_at at time zone m.time_zone - m.cut_off)::date) <= $1::date;

-- name: settle_day
-- One business day of every merchant that has no statement of it: what moved on its account, and the payment of what is
-- owed. Returns how many statements were made.
with day as (
    select m.id as merchant_id, m.account_id, m.currency, gen_random_uuid() as id,
        -- Where the day before ended, also when the merchant's cut-off has changed since.
        coalesce(b.ends_at, ($1::date + m.cut_off) at time zone m.time_zone) as starts_at,
        (($1::date + 1) + m.cut_off) at time zone m.time_zone as ends_at, b.closing_minor as carried_minor
    from merchant m
    left join lateral (
        select ends_at, closing_minor from settlement s where s.merchant_id = m.id and s.business_date < $1
        order by s.business_date desc limit 1
    ) as b on true
    where not exists (select from settlement s where s.merchant_id = m.id and s.business_date >= $1)
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
    insert into transfer (kind, source_id, debit_account_id, credit_account_id, amount_minor, currency, created_at)
    select 'settlement', s.id, m.account_id, h.id, s.paid_out_minor, s.currency, now()
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

-- name: merchant_statements
-- A page of a merchant's statements, latest day first: that of a day ($2), or those before another ($3).
select business_date, currency, starts_at, ends_at, opening_minor, sales, sales_minor, cancels, cancels_minor, refunds,
    refunds_minor, fees_minor, fees_returned_minor, net_minor, paid_out_minor, closing_minor
from settlement
where merchant_id = $1 and ($2::date is null or business_date = $2) and business_date < coalesce($3::date, 'infinity')
order by business_date desc limit $4;

-- name: audit_settlements
-- A statement is what its transfers say, starts where the one before ended, and was paid by exactly its transfer; and
-- every settlement transfer has its statement. What was archived cannot be added up any more: not the days that begin
-- before the archive's horizon, nor the payments of statements that were made before it (audit_archive counts those).
select coalesce(s.id, x.source_id)::text from (
    select s.*, m.account_id, h.id as house_id,
        lag(s.closing_minor, 1, 0::bigint) over days as previous_minor,
        lag(s.ends_at, 1, s.starts_at) over days as previous_end,
        coalesce(f.moved_minor, 0) as moved_minor, horizon.before as archived_before
    from settlement s
    cross join (select coalesce(max(before), '-infinity') as before from archive_part) as horizon
    join merchant m on m.id = s.merchant_id
    left join (
        -- Each entry looks up its day, which an index finds, so years of days cost no more than one.
        select day.id, sum(e.amount_minor) as moved_minor from (
            select credit_account_id as account_id, amount_minor, created_at from transfer
            where kind in ('payment', 'fee_return')
            union all
            select debit_account_id, -amount_minor, created_at from transfer where kind in ('cancel', 'refund', 'fee')
        ) as e
        join merchant m on m.account_id = e.account_id
        cross join lateral (
            select s.id, s.ends_at from settlement s where s.merchant_id = m.id and s.starts_at <= e.created_at
            order by s.starts_at desc limit 1
        ) as day
        where e.created_at < day.ends_at
        group by day.id
    ) as f on f.id = s.id
    left join account h on h.kind = 'house' and h.name = 'settlement' and h.currency = s.currency
    window days as (partition by s.merchant_id order by s.business_date)
) as s
full join (select * from transfer where kind = 'settlement') as x on x.source_id = s.id
where s.id is null
    or (s.moved_minor <> s.net_minor and s.starts_at >= s.archived_before)
    or s.opening_minor <> s.previous_minor or s.starts_at <> s.previous_end
    or (s.paid_out_minor > 0 and x.id is null and s.created_at >= s.archived_before)
    or (s.paid_out_minor = 0 and x.id is not null)
    or (x.id is not null and (x.amount_minor <> s.paid_out_minor or x.debit_account_id <> s.account_id
        or x.credit_account_id <> s.house_id or x.currency <> s.currency))
order by 1 limit $1;

-- name: first_unsealed_before
-- A transfer before a time that no seal covers.
select id from transfer
where id > coalesce((select last_id from seal order by number desc limit 1), 0) and created_at < $1
order by id limit 1;

-- name: archive_payments
-- The next 1000 payments by id from $1, and the lines of those that may be archived: final since before $2, and with all
-- their transfers up to the id $3, which is sealed and rolled up. A line holds every column that is not null.
select w.id, w.version, u.line, u.refund_ids, u.transfer_ids
from (select * from payment where id >= $1 order by id limit 1000) as w
left join lateral (
    select r.ids as refund_ids, x.ids as transfer_ids,
        jsonb_strip_nulls(jsonb_build_object('payment',
            to_jsonb(w) || jsonb_build_object('fingerprint', encode(w.fingerprint, 'hex')),
            'refunds', r.lines, 'transfers', x.lines))::text as line
    from (
        select coalesce(array_agg(r.id), '{}') as ids,
            coalesce(jsonb_agg(to_jsonb(r) order by r.created_at, r.id), '[]') as lines
        from refund r where r.payment_id = w.id
    ) as r
    cross join lateral (
        select coalesce(array_agg(t.id), '{}') as ids, coalesce(jsonb_agg(to_jsonb(t) order by t.id), '[]') as lines,
            coalesce(max(t.id) <= $3 and max(t.created_at) < $2, true) as is_settled
        from (
            select * from transfer where source_id = w.id
                and (kind in ('payment', 'top_up', 'withdrawal', 'fee', 'cancel')
                    or (kind = 'fee_return' and w.status = 'canceled'))
            union all
            select * from transfer where source_id = any(r.ids) and kind in ('refund', 'fee_return')
        ) as t
    ) as x
    where x.is_settled
) as u on w.changed_at < $2 and w.status <> 'pending'
order by w.id;

-- name: archive_settlements
-- The next settlement transfers by id, after $1, made before $2 and with ids up to $3; and their lines.
select t.id, jsonb_build_object('transfers', jsonb_build_array(jsonb_strip_nulls(to_jsonb(t))))::text as line
from transfer t where t.kind = 'settlement' and t.id > $1 and t.created_at < $2 and t.id <= $3
order by t.id limit 1000;

-- name: archive_names
-- Only while a payment still has the version that was written: whatever changes a payment or adds to it moves that.
insert into archived_name (merchant_id, id, status, reference)
select p.merchant_id, p.id, p.status, case when p.status in ('approved', 'canceled') then p.reference end
from payment p join unnest($1::uuid[], $2::int[]) as c (id, version) on p.id = c.id and p.version = c.version;

-- name: archive_refund_names
insert into archived_refund (id) select id from refund where id = any($1::uuid[]);

-- name: archive_transfers
-- Takes transfers out of the ledger and adds them to the balances; returns how many there were.
with gone as (
    delete from transfer where id = any($1::bigint[]) returning debit_account_id, credit_account_id, amount_minor
), entry as (
    select credit_account_id as account_id, amount_minor from gone
    union all
    select debit_account_id, -amount_minor from gone
), summed as (
    insert into archived_balance as b (account_id, balance_minor)
    select account_id, sum(amount_minor) from entry group by account_id
    on conflict (account_id) do update set balance_minor = b.balance_minor + excluded.balance_minor
)
select count(*) from gone;

-- name: archive_refunds
delete from refund where id = any($1::uuid[]);

-- name: archive_delete_payments
delete from payment p using unnest($1::uuid[], $2::int[]) as c (id, version)
where p.id = c.id and p.version = c.version;

-- name: last_archive_part
select number, sha256 from archive_part order by number desc limit 1;

-- name: add_archive_part
insert into archive_part (number, before, payments, refunds, settlements, transfers, file, sha256, archived_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: archive_parts
select file, sha256 from archive_part order by number;

-- name: archived_transfers
select coalesce(sum(transfers), 0)::bigint from archive_part;

-- name: vacuum_archived
-- What was deleted leaves room that new rows fill.
vacuum (analyze) payment, refund, transfer;

-- name: forget_transfer_times
-- The index by time knows ranges of blocks by their oldest and newest row. It never narrows a range by itself: where old
-- rows were deleted and new ones came, every day of the years between would be looked for.
select brin_desummarize_range('transfer_created', block)
from generate_series(0, pg_relation_size('transfer') / current_setting('block_size')::bigint, 32) as block;

-- name: learn_transfer_times
select brin_summarize_new_values('transfer_created');

-- name: create_archived_digest
create temporary table archived_digest (id bigint primary key, digest bytea not null);

-- name: drop_archived_digest
drop table archived_digest;

-- name: add_archived_digests
insert into archived_digest select * from unnest($1::bigint[], $2::bytea[]) on conflict do nothing;

-- name: archived_digests
select id, digest from archived_digest where id >= $1 and id <= $2 order by id;

-- name: nameless_archived
-- Which of these payments ($1) and refunds ($2) are not known as archived.
select 'payment ' || q.id as name from unnest($1::uuid[]) as q (id)
where not exists (select from archived_name a where a.id = q.id)
union all
select 'refund ' || q.id from unnest($2::uuid[]) as q (id)
where not exists (select from archived_refund a where a.id = q.id)
order by name;

-- name: audit_archive
-- There are as many names of archived payments and refunds as the parts hold, and as many settlements whose transfer is
-- not here any more.
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
where here <> archived
order by kind limit $1;

-- name: audit_archived_once
-- What was archived is not in the ledger any more: no payment or refund of that id, and no payment that occupies the same
-- order.
select id from (
    select a.id::text from archived_name a join payment p on p.id = a.id
    union
    select a.id::text from archived_refund a join refund r on r.id = a.id
    union
    select a.id::text from archived_name a join payment p on p.merchant_id = a.merchant_id and p.reference = a.reference
    where p.status in ('pending', 'approved', 'canceled')
) as twice
order by id limit $1;
