-- name: stores
-- A merchant's stores after an id, oldest first.
select id as store_id, name from store where merchant_id = $1 and id > $2 order by id limit $3;

-- name: terminals
-- A merchant's terminals after a number, or those of one of its stores, oldest first.
select t.number as terminal_number, t.store_id, t.name, t.status, t.generation > 0 as activated, t.shift_id
from terminal t join store s on s.id = t.store_id
where s.merchant_id = $1 and t.number > $2 and ($4::bigint is null or s.id = $4)
order by t.number limit $3;
