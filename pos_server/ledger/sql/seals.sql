-- name: last_seal
select number, day, last_id, hash from seal order by number desc limit 1;

-- name: first_transfer_at
select created_at from transfer order by id limit 1;

-- name: last_transfer_before
-- The last transfer before $1, and the transactions that may add transfers now.
select coalesce(max(id), $2) as last_id, array(select l.virtualtransaction from pg_locks l where {writer}) as writers
from transfer where id > $2 and created_at < $1;

-- name: transfer_digests
select t.id, transfer_digest(t) as digest from transfer t where t.id > $1 and t.id <= $2 order by t.id limit $3;

-- name: add_seal
insert into seal (day, number, first_id, last_id, transfers, digests, previous_hash, hash)
values ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: seals
select number, day::text, first_id, last_id, transfers, digests, previous_hash, hash from seal order by number;

-- name: archived_transfers
select coalesce(sum(transfers), 0)::bigint from archive_part;

-- name: archived_digests
select id, digest from archived_digest where id >= $1 and id <= $2 order by id;
