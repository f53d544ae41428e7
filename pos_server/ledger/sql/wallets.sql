-- part: wallet_resource_columns
w.number as wallet_number, w.name, w.currency, w.balance_minor, w.status, w.pin_hash is not null as pin_set,
    case when w.pin_locked_until > now() then w.pin_locked_until end as pin_locked_until

-- part: limit_columns
payment_minor_max, day_minor_max, pin_free_minor_max, pin_free_day_count_max, pin_free_day_minor_max, top_up_minor_max,
    balance_minor_max

-- name: wallet_resource
select {wallet_resource_columns} from wallet w where w.number = $1;

-- name: list_wallets
select {wallet_resource_columns} from wallet w where w.number > $1 order by w.number limit $2;

-- name: own_limits
select {limit_columns} from wallet where number = $1;

-- name: own_limits_for_update
select {limit_columns} from wallet where number = $1 for no key update;

-- name: set_own_limits
-- Increments the version, so that a payment decided before this change is decided again.
update wallet set payment_minor_max = $2, day_minor_max = $3, pin_free_minor_max = $4, pin_free_day_count_max = $5,
    pin_free_day_minor_max = $6, top_up_minor_max = $7, balance_minor_max = $8, version = version + 1
where number = $1;

-- name: wallet_devices
select slot, case when status = 'revoked' then status when generation = 0 then 'unused' else 'active' end as status
from wallet_device where wallet_number = $1 order by slot;

-- name: lock_wallet
select number from wallet where number = $1 for no key update;

-- name: free_slot
-- A slot with an open activation code is reserved for its recipient.
select slot from generate_series(0, $2::int) as slot
where not exists (
        select from wallet_device d
        where d.wallet_number = $1 and d.slot = slot.slot and d.status = 'active' and d.generation > 0
    ) and not exists (
        select from activation a
        where a.kind = 'wallet' and a.number = $1 and a.slot = slot.slot and a.request_id is null
            and a.expires_at > now()
    )
order by slot limit 1;

-- name: end_activations
with open_code as materialized (
    select code_hash from activation where kind = $1 and number = $2 and slot = $3 and expires_at > now()
    order by code_hash for update
)
update activation a set expires_at = now() from open_code o where a.code_hash = o.code_hash;

-- name: revoke_wallet_device
-- Increments the generation only once. Increments the wallet's version, so that a payment decided with the revoked key
-- is decided again.
with new_version as (update wallet set version = version + 1 where number = $1)
update wallet_device set generation = generation + case status when 'active' then 1 else 0 end, status = 'revoked'
where wallet_number = $1 and slot = $2 returning generation;

-- name: payment_of_purpose
select {payment_columns}
from payment p where p.id = $1 and p.merchant_id = $2 and p.purpose = $3;

-- name: is_archived
select exists (select from archived_name where id = $1 and merchant_id = $2);

-- name: merchants_of_cash
-- At most two merchants with a payment of this id and purpose, or with an archived one, whose purpose is not known.
select merchant_id from payment where id = $1 and purpose = $2
union
select merchant_id from archived_name where id = $1
order by merchant_id limit 2;

-- name: is_paid_elsewhere
-- True if another merchant has a payment with this id that no terminal made: a terminal cannot occupy an id of the API.
select exists (
    select from payment where id = $1 and merchant_id <> $2 and terminal_number is null and fingerprint is not null
);

-- name: wallet_transfers
-- A wallet's transfers, newest first, each with the balance after it. Balances are computed backwards from the wallet's
-- balance in the same snapshot. All archived transfers come last, as one. Each page reads all of the wallet's payments
-- in the ledger: by the index payment_wallet, two probes of transfer_source per approved payment and one per refund. An
-- index of their own would be faster here but would slow every payment. The limits and offsets keep the planner from
-- joining whole tables.
with held as (
    select account_id, balance_minor from wallet where number = $1
), moved as (
    select x.id, x.kind, x.created_at, p.id as payment_id, p.merchant_id,
        case when x.credit_account_id = h.account_id then x.amount_minor else -x.amount_minor end as amount_minor,
        case when x.credit_account_id = h.account_id then x.debit_account_id else x.credit_account_id end as other_id
    from held h
    cross join lateral (
        select p.id, p.merchant_id, p.refunds, p.transfers_named from payment p
        where p.wallet_number = $1 and p.approved_at is not null
        offset 0
    ) as p
    cross join lateral (
        (select x.* from transfer x
        where x.source_id = p.id and x.kind in ('payment', 'top_up', 'withdrawal', 'cancel')
            and is_transfer_of(x.merchant_id, p.merchant_id, p.transfers_named)
        limit 2)
        union all
        select x.* from (
            select r.* from refund r where p.refunds > 0 and r.payment_id = p.id and r.merchant_id = p.merchant_id
            offset 0
        ) as r
        cross join lateral (
            select x.* from transfer x
            where x.source_id = r.id and x.kind = 'refund'
                and is_transfer_of(x.merchant_id, r.merchant_id, r.transfers_named)
            limit 1
        ) as x
    ) as x
), listed as (
    select m.*, (h.balance_minor - coalesce(sum(m.amount_minor) over newer, 0))::bigint as balance_minor
    from held h cross join moved m
    window newer as (order by m.id desc rows between unbounded preceding and 1 preceding)
    union all
    select 0, 'archived', null, null, null, b.balance_minor, null, b.balance_minor
    from held h join archived_balance b on b.account_id = h.account_id
)
select t.id, t.kind, t.created_at, t.payment_id, t.merchant_id, t.amount_minor, t.balance_minor,
    case a.kind when 'house' then 'house' else a.name end as counterpart
from (select * from listed where $2::bigint is null or id < $2 order by id desc limit $3) as t
left join account a on a.id = t.other_id
order by t.id desc;
