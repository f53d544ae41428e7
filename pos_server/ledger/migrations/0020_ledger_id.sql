-- The random id of this ledger, made once. Files that leave the ledger name it, so that no other ledger replaces them.
create table ledger_identity (
    single boolean primary key default true check (single),
    id uuid not null default gen_random_uuid(),
    -- SHA-256 of the archive file that this ledger published last; until the file is recorded, a next run may set it aside.
    published_sha256 bytea
);
insert into ledger_identity (single) values (true);
grant select on ledger_identity to pos_app;
