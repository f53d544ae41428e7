-- name: audit_sort_order
-- No index is sorted by a collation that has changed since. (The ledger's own keys are sorted byte by byte.)
select i.indexrelid::regclass::text
from pg_index i
join pg_class r on r.oid = i.indrelid and r.relnamespace = current_schema()::regnamespace
cross join unnest(i.indcollation::oid[]) as k (collation_id)
join pg_collation c on c.oid = k.collation_id
join pg_database d on d.datname = current_database()
where case c.collprovider
    when 'd' then d.datcollversion is distinct from pg_database_collation_actual_version(d.oid)
    else c.collversion is distinct from pg_collation_actual_version(c.oid)
end
group by 1 order by 1 limit $1;

-- name: changed_collation
-- The recorded and the actual version of the database's collation, if they differ.
select datcollversion as recorded, pg_database_collation_actual_version(oid) as actual from pg_database
where datname = current_database() and datcollversion is distinct from pg_database_collation_actual_version(oid);

-- name: audit_unique
-- Ids and orders are unique. Text in place of the keys keeps Postgres from reading an index, whose order may be wrong.
select name from (
    select 'payment ' || id::text as name from payment group by id::text, merchant_id having count(*) > 1
    union all
    select 'refund ' || id::text from refund group by id::text, merchant_id having count(*) > 1
    union all
    select 'order ' || (reference || '') from payment
    where reference is not null and status || '' in ('pending', 'approved', 'canceled')
    group by merchant_id, reference || '' having count(*) > 1
    union all
    select 'archived order ' || (reference || '') from archived_name where reference is not null
    group by merchant_id, reference || '' having count(*) > 1
    union all
    select 'shift ' || id::text from shift group by id::text, merchant_id having count(*) > 1
    union all
    select 'account ' || (name || '') || ' ' || currency from account where kind = 'house'
    group by name || '', currency having count(*) > 1
) as twice
order by name limit $1;
