-- name: all_ended
select not exists (
    select from pg_locks where locktype = 'virtualxid' and virtualtransaction = any($1::text[])
);

-- name: last_transfer
-- The last transfer, and the transactions that are running now.
select coalesce(max(id), 0) as last_id, array(
    select virtualtransaction from pg_locks where locktype = 'virtualxid' and pid <> pg_backend_pid()
) as running
from transfer;
