-- name: try_lead
-- A session-level lock, held until the connection ends.
select pg_try_advisory_lock($1);
