-- Keys are compared byte by byte. In the order of a language, an index is no longer sorted after an update of the system's
-- C library, and a paid order is not found: it is charged again. Rebuilds the indexes, about a minute per 20 million
-- payments. If it fails with "could not create unique index", see docs/operations.md, "After an update of the system".
do $$
declare
    -- A column keeps its type while a trigger or a function names it.
    fixed text := pg_get_triggerdef(oid) from pg_trigger where tgname = 'payment_is_fixed';
    digest text := pg_get_functiondef('transfer_digest'::regproc);
begin
    drop trigger payment_is_fixed on payment;
    drop function transfer_digest;
    alter table payment alter reference type text collate "C", alter status type text collate "C";
    alter table transfer alter kind type text collate "C";
    execute digest;
    execute fixed;
end
$$;
alter table archived_name alter reference type text collate "C";
alter table idempotency_key alter tenant type text collate "C", alter key type text collate "C";
alter table account alter name type text collate "C", alter currency type text collate "C";
alter table activation alter kind type text collate "C";
