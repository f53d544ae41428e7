-- name: notify_peers
select pg_notify('pos_peers', payload) from unnest($1::text[]) as payload;

-- name: join_peers
select pg_advisory_lock_shared($1, $2);

-- name: has_peers
-- True if another session shares that lock.
select exists (
    select from pg_locks
    where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())
        and classid = $1::bigint::oid and objid = $2::bigint::oid and objsubid = 2 and pid <> pg_backend_pid()
);
