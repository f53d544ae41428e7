-- name: try_exclusive
-- A session-level lock, which ends with the connection at the latest.
select pg_try_advisory_lock($1);

-- name: end_exclusive
select pg_advisory_unlock($1);
