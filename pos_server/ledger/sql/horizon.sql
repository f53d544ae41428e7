-- name: writers_ended
-- Whether the transactions $1 have ended. One that was prepared meanwhile has another name, so every prepared one counts
-- (its pid is null).
select not exists (select from pg_locks l where {writer} and (l.virtualtransaction = any($1::text[]) or l.pid is null));

-- name: first_writer
-- The name of an unfinished transaction, for a person.
select case when l.pid is null then 'a prepared transaction (' || (
        select string_agg(quote_literal(gid), ' or ') from pg_prepared_xacts where database = current_database()
    ) || ')'
    else 'the transaction of process ' || l.pid || coalesce((
        select ' (' || a.application_name || ')' from pg_stat_activity a where a.pid = l.pid and a.application_name <> ''
    ), '') end
from pg_locks l where {writer} and (l.virtualtransaction = any($1::text[]) or l.pid is null) limit 1;

-- name: last_transfer
-- The last transfer, and the transactions that may add transfers now.
select coalesce(max(id), 0) as last_id, array(select l.virtualtransaction from pg_locks l where {writer}) as writers
from transfer;
