-- Every SQL statement the server runs, by name. `ledger/sql.py` loads them.

-- name: load_book
-- All a batch of scans needs, one row per scan: the till, the wallet and device its code names, an earlier payment
-- of the same id, and the payment that already paid the same order.
select
    t.status as terminal_status, s.name as store_name,
    m.status as merchant_status, m.account_id as merchant_account_id, m.name as merchant_name,
    w.number as wallet_number, w.account_id, w.currency as wallet_currency, w.balance_minor,
    w.status as wallet_status, w.version as wallet_version,
    d.wallet_number as device_wallet_number, d.slot, d.kid, d.generation, d.status as device_status,
    d.spent_mark,
    p.id, p.fingerprint, p.terminal_number, p.merchant_id, p.wallet_number as payment_wallet_number,
    p.reference, p.amount_minor, p.currency, p.status as payment_status, p.decline_code, p.paid_by,
    p.version as payment_version, (extract(epoch from p.changed_at) * 1000)::bigint as changed_at_ms,
    o.id as open_payment_id
from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::smallint[]) with ordinality
    as q (payment_id, terminal_number, merchant_id, reference, wallet_number, slot, position)
join terminal t on t.number = q.terminal_number
join store s on s.id = t.store_id
join merchant m on m.id = s.merchant_id
left join payment p on p.id = q.payment_id
left join payment o
    on o.merchant_id = q.merchant_id and o.reference = q.reference and o.status = 'approved'
left join wallet w on w.number = coalesce(p.wallet_number, q.wallet_number)
left join wallet_device d on d.wallet_number = q.wallet_number and d.slot = q.slot
order by q.position;

-- name: apply_changes
-- Everything a batch decided, in one statement and so in one commit: wallets (each only if its version is still the
-- one the decision saw, locked in one order), devices' spent codes, payments, transfers. A lost guard or a payment
-- id or order that another server stored meanwhile undoes all of it.
with wallet_change as (
    select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
        as c (number, seen_version, new_version, balance_minor)
), locked as materialized (
    select w.number from wallet w join wallet_change c on w.number = c.number and w.version = c.seen_version
    order by w.number
    for no key update of w
), moved as (
    update wallet w set balance_minor = c.balance_minor, version = c.new_version
    from wallet_change c join locked l on l.number = c.number
    where w.number = c.number and w.version = c.seen_version
    returning w.number
), spent as (
    update wallet_device d set spent_mark = c.spent_mark
    from unnest($5::bigint[], $6::smallint[], $7::bigint[]) as c (wallet_number, slot, spent_mark)
    join locked l on l.number = c.wallet_number
    where d.wallet_number = c.wallet_number and d.slot = c.slot and d.spent_mark <= c.spent_mark
    returning 1
), paid as (
    insert into payment (id, fingerprint, terminal_number, merchant_id, wallet_number, reference, amount_minor,
        currency, status, decline_code, paid_by, version, changed_at)
    select p.*, 1, to_timestamp($20::bigint / 1000.0)
    from unnest($8::uuid[], $9::bytea[], $10::bigint[], $11::bigint[], $12::bigint[], $13::text[], $14::bigint[],
        $15::text[], $16::text[], $17::text[], $18::uuid[]) as p
), posted as (
    insert into transfer (kind, source_id, debit_account_id, credit_account_id, amount_minor, currency,
        wallet_number, created_at)
    select 'payment', x.*, to_timestamp($20::bigint / 1000.0)
    from unnest($19::uuid[], $21::bigint[], $22::bigint[], $23::bigint[], $24::text[], $25::bigint[]) as x
)
select case
    when (select count(*) from moved) <> cardinality($1::bigint[]) then ledger_conflict('wallet version')
    when (select count(*) from spent) <> cardinality($5::bigint[]) then ledger_conflict('spent code')
    else true
end;

-- name: terminal_to_authenticate
select t.kid, t.generation, s.name as store_name, m.id as merchant_id, m.name as merchant_name, m.currency
from terminal t join store s on s.id = t.store_id join merchant m on m.id = s.merchant_id
where t.number = $1;

-- name: wallet_device_to_authenticate
select case when d.status = 'active' then d.kid end as kid, d.generation, w.currency
from wallet_device d join wallet w on w.number = d.wallet_number
where d.wallet_number = $1 and d.slot = $2;

-- name: terminal_payments_since
-- What a till may have missed, oldest first.
select p.id, p.fingerprint, p.terminal_number, p.merchant_id, p.wallet_number as payment_wallet_number,
    p.reference, p.amount_minor, p.currency, p.status as payment_status, p.decline_code, p.paid_by,
    p.version as payment_version, (extract(epoch from p.changed_at) * 1000)::bigint as changed_at_ms
from payment p where p.terminal_number = $1 and p.changed_at > to_timestamp($2::bigint / 1000.0)
order by p.changed_at, p.id limit $3;

-- name: wallet_payments_since
-- What a wallet may have missed, oldest first, with the names it shows.
select p.id, p.fingerprint, p.terminal_number, p.merchant_id, p.wallet_number as payment_wallet_number,
    p.reference, p.amount_minor, p.currency, p.status as payment_status, p.decline_code, p.paid_by,
    p.version as payment_version, (extract(epoch from p.changed_at) * 1000)::bigint as changed_at_ms,
    m.name as merchant_name, s.name as store_name
from payment p
join terminal t on t.number = p.terminal_number
join store s on s.id = t.store_id
join merchant m on m.id = p.merchant_id
where p.wallet_number = $1 and p.changed_at > to_timestamp($2::bigint / 1000.0)
order by p.changed_at, p.id limit $3;

-- name: wallet_balance
select balance_minor from wallet where number = $1;

-- name: device_generations
-- The generation of each device's key now; 0 when it is revoked.
select coalesce(t.generation, case when d.status = 'active' then d.generation end, 0) as generation
from unnest($1::text[], $2::bigint[], $3::smallint[]) with ordinality as q (kind, number, slot, position)
left join terminal t on q.kind = 'terminal' and t.number = q.number
left join wallet_device d on q.kind = 'wallet' and d.wallet_number = q.number and d.slot = q.slot
order by q.position;

-- name: create_account
insert into account (kind, name, currency) values ($1, $2, $3) returning id;

-- name: house_account
-- Finds or makes the house account of this name and currency.
with made as (
    insert into account (kind, name, currency) values ('house', $1, $2)
    on conflict (name, currency) where kind = 'house' do nothing
    returning id
)
select id from made union all select id from account where kind = 'house' and name = $1 and currency = $2
limit 1;

-- name: create_merchant
insert into merchant (account_id, name, currency) values ($1, $2, $3) returning id;

-- name: create_store
insert into store (merchant_id, name) values ($1, $2) returning id;

-- name: create_terminal
insert into terminal (store_id, name) values ($1, $2) returning number;

-- name: create_wallet
insert into wallet (account_id, name, currency) values ($1, $2, $3) returning number;

-- name: create_wallet_device
insert into wallet_device (wallet_number, slot) values ($1, $2) on conflict do nothing;

-- name: create_activation
insert into activation (code_hash, kind, number, slot, expires_at)
values ($1, $2, $3, $4, now() + make_interval(secs => $5));

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

-- name: top_up
-- Money comes in: house cash is debited, the wallet credited; once per id.
with posted as (
    insert into transfer (kind, source_id, debit_account_id, credit_account_id, amount_minor, currency,
        wallet_number, created_at)
    select 'top_up', $1, $4, w.account_id, $3, w.currency, w.number, now() from wallet w where w.number = $2
    on conflict (source_id, kind) do nothing
    returning wallet_number, amount_minor
)
update wallet w set balance_minor = w.balance_minor + p.amount_minor, version = w.version + 1
from posted p where w.number = p.wallet_number
returning w.balance_minor;

-- name: demo_merchant
select id from merchant where name = $1 order by id limit 1;

-- name: demo_terminals
select t.number, t.name, s.name as store from terminal t join store s on s.id = t.store_id
where s.merchant_id = $1 order by t.number;

-- name: demo_wallets
select number, name, balance_minor from wallet order by number;

-- name: audit_counts
select (select count(*) from transfer) as transfers, (select count(*) from payment) as payments,
    (select count(*) from wallet) as wallets;

-- name: audit_accounts_exist
-- A transfer's two accounts exist and hold its currency. With that, debits and credits cancel out per currency.
select x.id::text from transfer x
left join account d on d.id = x.debit_account_id and d.currency = x.currency
left join account c on c.id = x.credit_account_id and c.currency = x.currency
where d.id is null or c.id is null
order by x.id limit $1;

-- name: audit_sum_is_zero
-- Over the accounts that exist, credits less debits are zero per currency.
select currency from (
    select c.currency, x.amount_minor from transfer x join account c on c.id = x.credit_account_id
    union all
    select d.currency, -x.amount_minor from transfer x join account d on d.id = x.debit_account_id
) as entry
group by currency having sum(amount_minor) <> 0
order by currency limit $1;

-- name: audit_balances
-- A wallet's balance is what its account was credited less what it was debited.
select w.number::text from wallet w
left join (
    select account_id, sum(amount_minor) as balance_minor from (
        select credit_account_id as account_id, amount_minor from transfer
        union all
        select debit_account_id, -amount_minor from transfer
    ) as entry group by account_id
) as e on e.account_id = w.account_id
where w.balance_minor <> coalesce(e.balance_minor, 0)
order by w.number limit $1;

-- name: audit_payments_paid
-- An approved payment has its one payment transfer: same amount, currency, wallet, from the wallet to the merchant.
select p.id::text from payment p
left join merchant m on m.id = p.merchant_id
left join wallet w on w.number = p.wallet_number
left join transfer x on x.source_id = p.id and x.kind = 'payment'
    and x.amount_minor = p.amount_minor and x.currency = p.currency and x.wallet_number = p.wallet_number
    and x.debit_account_id = w.account_id and x.credit_account_id = m.account_id
where p.status = 'approved' and x.id is null
order by p.id limit $1;

-- name: audit_transfers_owed
-- A payment transfer belongs to an approved payment.
select x.id::text from transfer x
left join payment p on p.id = x.source_id and p.status = 'approved'
where x.kind = 'payment' and p.id is null
order by x.id limit $1;
