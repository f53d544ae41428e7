-- name: try_idempotency_key
-- Locks the key until the transaction ends. Two keys with the same 64-bit hash would block each other needlessly.
select pg_try_advisory_xact_lock(hashtextextended($1 || chr(31) || $2, 0));

-- name: idempotency_key
select fingerprint, answer, kid from idempotency_key where tenant = $1 and key = $2;

-- name: store_idempotency_key
insert into idempotency_key (tenant, key, fingerprint, answer, kid) values ($1, $2, $3, $4, $5);
