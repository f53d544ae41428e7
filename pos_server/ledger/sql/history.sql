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
