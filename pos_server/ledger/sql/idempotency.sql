-- name: try_idempotency_key
-- Until the transaction ends. Two keys with one hash wait for each other in vain, once in 2^63.
select pg_try_advisory_xact_lock(hashtextextended($1 || chr(31) || $2, 0));

-- name: idempotency_key
select fingerprint, answer, kid from idempotency_key where tenant = $1 and key = $2;

-- name: keep_idempotency_key
insert into idempotency_key (tenant, key, fingerprint, answer, kid) values ($1, $2, $3, $4, $5);
