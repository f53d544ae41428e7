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
