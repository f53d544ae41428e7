-- name: try_lead
-- Session-level: it is held until the connection ends.
select pg_try_advisory_lock($1);
