-- What the incremental audit has proved (pos_server/ledger/incremental_audit.py). Without grants: only the owner may say
-- that something was proved, never the server.

-- A seal whose transfers were audited, and with them the payments that last changed up to `changed_to` and after that of
-- the seal before. The hash binds the row to the seal. `missing` transfers had been archived before.
create table audited_seal (
    seal_number bigint primary key,
    seal_hash bytea not null,
    last_id bigint not null,
    changed_to timestamptz not null,
    transfers bigint not null,
    payments bigint not null,
    missing bigint not null,
    audited_at timestamptz not null default now(),
    audited_by text not null default session_user
);

-- Credits less debits of all audited transfers, also of those that were archived.
create table audited_balance (
    account_id bigint primary key,
    balance_minor bigint not null
);
