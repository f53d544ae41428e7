-- name: terminal_payments_after
-- A page of the payments that a terminal may have missed, oldest change first.
select {payment_columns}
from payment p
where p.terminal_number = $1 and (p.changed_at, p.id, p.merchant_id) > (from_unix_ms($2), $3::uuid, $4::bigint)
order by p.changed_at, p.id, p.merchant_id limit $5;

-- name: wallet_payments_after
-- A page of the payments that a wallet may have missed, oldest change first, with the names that it displays.
select {payment_columns},
    m.name as merchant_name, coalesce(s.name, '') as store_name
from payment p
left join terminal t on t.number = p.terminal_number
left join store s on s.id = t.store_id
join merchant m on m.id = p.merchant_id
where p.wallet_number = $1 and (p.changed_at, p.id, p.merchant_id) > (from_unix_ms($2), $3::uuid, $4::bigint)
order by p.changed_at, p.id, p.merchant_id limit $5;

-- name: terminals_changed_since
-- Those of these terminals that have payments which changed since a time.
select number from unnest($1::bigint[]) as number
where exists (select from payment p where p.terminal_number = number and p.changed_at >= from_unix_ms($2));

-- name: wallets_changed_since
-- Those of these wallets that have payments which changed since a time.
select number from unnest($1::bigint[]) as number
where exists (select from payment p where p.wallet_number = number and p.changed_at >= from_unix_ms($2));

-- name: payment_by_id
select {payment_columns}
from payment p where p.id = $2 and p.merchant_id = $1;

-- name: payment_by_reference
-- The payment that occupies the order, else the last one that failed.
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
-- True if the merchant's payment with this id, or the payment that occupies this order, is archived.
select exists (select from archived_name where id = $2 and merchant_id = $1)
    or exists (select from archived_name where merchant_id = $1 and reference = $3);

-- name: terminal_recent
select {payment_columns}
from payment p where p.terminal_number = $1
order by p.changed_at desc, p.id desc limit $2;

-- name: wallet_history
-- A page of a wallet's payments, latest change first, after the last payment of the previous page.
select {payment_columns},
    m.name as merchant_name, coalesce(s.name, '') as store_name
from payment p
left join terminal t on t.number = p.terminal_number
left join store s on s.id = t.store_id
join merchant m on m.id = p.merchant_id
where p.wallet_number = $1
    and ($2::bigint is null or (p.changed_at, p.id, p.merchant_id) < (from_unix_ms($2), $3::uuid, $4::bigint))
order by p.changed_at desc, p.id desc, p.merchant_id desc limit $5;

-- name: wallet_pending
-- Payments that wait for this wallet's PIN, oldest first.
select {payment_columns},
    m.name as merchant_name, coalesce(s.name, '') as store_name
from payment p
left join terminal t on t.number = p.terminal_number
left join store s on s.id = t.store_id
join merchant m on m.id = p.merchant_id
where p.wallet_number = $1 and p.status = 'pending'
order by p.changed_at, p.id, p.merchant_id limit $2;

-- name: merchants_of_wallet_payment
-- At most two merchants to which the wallet has made a payment with this id.
select merchant_id from payment where id = $2 and wallet_number = $1 limit 2;

-- name: wallet
select {wallet_columns}
from wallet w where w.number = $1;
