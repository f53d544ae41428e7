-- part: merchant_columns
m.id as merchant_id, m.name, m.currency, m.status, m.fee_bps, m.fee_fixed_minor, m.time_zone, m.cut_off

-- name: terminal_to_authenticate
select t.kid, t.generation, s.name as store_name, m.id as merchant_id, m.name as merchant_name, m.currency, t.shift_id
from terminal t join store s on s.id = t.store_id join merchant m on m.id = s.merchant_id
where t.number = $1;

-- name: wallet_device_to_authenticate
select case when d.status = 'active' then d.kid end as kid, d.generation, w.currency
from wallet_device d join wallet w on w.number = d.wallet_number
where d.wallet_number = $1 and d.slot = $2;

-- name: set_wallet_status
-- Increments the version, so that a payment decided before this change is decided again.
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
-- Leaves the wallet without a PIN, so that the customer can set a new one.
update wallet set pin_hash = null, pin_kid = null, pin_generation = pin_generation + 1, pin_failures = 0,
    pin_locked_until = 'epoch', pin_request_id = null, pin_request_done = false, version = version + 1
where number = $1 returning number;

-- name: device_generations
-- The current key generation of each device; 0 for a revoked device.
select coalesce(t.generation, case when d.status = 'active' then d.generation end, 0) as generation
from unnest($1::text[], $2::bigint[], $3::smallint[]) with ordinality as q (kind, number, slot, position)
left join terminal t on q.kind = 'terminal' and t.number = q.number
left join wallet_device d on q.kind = 'wallet' and d.wallet_number = q.number and d.slot = q.slot
order by q.position;

-- name: create_account
insert into account (kind, name, currency) values ($1, $2, $3) returning id;

-- name: create_house_accounts
insert into account (kind, name, currency) select 'house', name, $2 from unnest($1::text[]) as name
on conflict (name, currency) where kind = 'house' do nothing;

-- name: create_merchant
insert into merchant (account_id, name, currency) values ($1, $2, $3) returning id;

-- name: merchant
select {merchant_columns} from merchant m where m.id = $1;

-- name: list_merchants
select {merchant_columns} from merchant m where m.id > $1 order by m.id limit $2;

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
values ($1, $2, $3, $4, now() + make_interval(secs => $5)) returning expires_at;

-- name: lock_activation
select kind, number, slot, request_id, kid, generation
from activation where code_hash = $1 and expires_at > now()
for update;

-- name: use_activation
update activation set request_id = $2, kid = $3, generation = $4 where code_hash = $1;

-- name: rekey_terminal
update terminal set kid = $2, generation = generation + 1 where number = $1 returning generation;

-- name: rekey_wallet_device
-- Increments the wallet's version too, so that a payment decided with the previous key is decided again. A new key
-- makes new codes, none of which is spent.
with new_version as (update wallet set version = version + 1 where number = $1)
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
