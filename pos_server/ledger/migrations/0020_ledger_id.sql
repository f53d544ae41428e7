-- Which ledger this is, for its files. A restored copy has the same id.
create table ledger (
    only_row boolean primary key default true check (only_row),
    id uuid not null default gen_random_uuid(),
    -- Names of the attempts to write the next part of the archive; empty once it is recorded. A file that was written
    -- but not recorded contains one of them, which a copy of the ledger does not know.
    archive_attempts uuid[] not null default '{}'
);
insert into ledger default values;
