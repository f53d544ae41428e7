-- name: lock_rollup
select last_id from rollup_horizon for update;

-- name: roll_up
-- Adds the transfers between the horizon and the new one, and moves the horizon, in one commit, so that none counts
-- twice.
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
-- The stored sum and the transfers after the horizon, in one statement and so in one snapshot.
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
-- The same for one merchant.
select (coalesce(r.balance_minor, 0) + coalesce((
    select sum(case when x.credit_account_id = m.account_id then x.amount_minor else -x.amount_minor end)
    from transfer x
    where x.id > (select last_id from rollup_horizon) and m.account_id in (x.credit_account_id, x.debit_account_id)
), 0))::bigint
from merchant m left join account_rollup r on r.account_id = m.account_id
where m.id = $1;
