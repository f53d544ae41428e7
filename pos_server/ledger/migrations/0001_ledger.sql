-- The ledger's first form: who takes part, the money they hold, and the payments between them.
--
-- Amounts are bigint minor units. Times are timestamptz; what the server decided carries the server's own time.
-- No foreign keys point at rows that payments update or read in bulk: their share locks would serialize
-- a busy merchant. `pos-server audit` proves what they would have promised.

create table account (
    id bigint generated always as identity primary key,
    kind text not null check (kind in ('wallet', 'merchant', 'house')),
    name text not null,
    currency text not null check (currency ~ '^[A-Z]{3}$')
);
-- One house account of a name and currency: `cash_in` is the other side of every top-up.
create unique index account_house on account (name, currency) where kind = 'house';

create table merchant (
    id bigint generated always as identity primary key,
    account_id bigint not null unique references account (id),
    name text not null,
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    status text not null default 'active' check (status in ('active', 'inactive'))
);

create table store (
    id bigint generated always as identity primary key,
    merchant_id bigint not null references merchant (id),
    name text not null
);

-- `generation` 0: never activated. Each activation adds one and so makes a new key.
create table terminal (
    number bigint generated always as identity (start with 1001) primary key,
    store_id bigint not null references store (id),
    name text not null,
    status text not null default 'active' check (status in ('active', 'disabled')),
    kid text,
    generation integer not null default 0
);

create table wallet (
    number bigint generated always as identity (start with 1000000001 maxvalue 9999999999) primary key,
    account_id bigint not null unique references account (id),
    name text not null,
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    balance_minor bigint not null default 0 check (balance_minor >= 0),
    status text not null default 'active' check (status in ('active', 'frozen', 'closed')),
    version bigint not null default 0
) with (fillfactor = 70);

-- `spent_mark` orders the codes of a device by (step, seq); only a greater one can still be used.
create table wallet_device (
    wallet_number bigint not null,
    slot smallint not null check (slot between 0 and 9),
    kid text,
    generation integer not null default 0,
    status text not null default 'active' check (status in ('active', 'revoked')),
    spent_mark bigint not null default 0,
    primary key (wallet_number, slot)
) with (fillfactor = 70);

-- Only a hash of the one-time code is kept. `request_id` is set by the device that used it.
create table activation (
    code_hash bytea primary key,
    kind text not null check (kind in ('terminal', 'wallet')),
    number bigint not null,
    slot smallint not null,
    expires_at timestamptz not null,
    request_id uuid,
    kid text,
    generation integer
);

create table payment (
    id uuid primary key,
    fingerprint bytea not null,
    terminal_number bigint not null,
    merchant_id bigint not null,
    wallet_number bigint,
    reference text not null,
    amount_minor bigint not null check (amount_minor > 0),
    currency text not null,
    status text not null check (status in ('approved', 'declined')),
    decline_code text check ((decline_code is not null) = (status = 'declined')),
    paid_by uuid,
    version integer not null,
    changed_at timestamptz not null,
    check (wallet_number is not null or status = 'declined')
);
-- At most one payment of an order: what makes scanning twice harmless.
create unique index payment_open_reference on payment (merchant_id, reference) where status = 'approved';

create table transfer (
    id bigint generated always as identity primary key,
    kind text not null check (kind in ('payment', 'top_up')),
    -- What caused it: a payment's id, a top-up's id.
    source_id uuid not null,
    debit_account_id bigint not null,
    credit_account_id bigint not null,
    amount_minor bigint not null check (amount_minor > 0),
    currency text not null,
    wallet_number bigint not null,
    created_at timestamptz not null,
    check (debit_account_id <> credit_account_id)
);
create unique index transfer_source on transfer (source_id, kind);

-- A lost guard inside a data-modifying statement must undo the whole statement.
create function ledger_conflict(detail text) returns boolean language plpgsql as $$
begin
    raise exception 'ledger conflict: %', detail using errcode = '40001';
end
$$;

-- The server works under this role: it may add transfers, never change or remove one.
do $$
begin
    create role pos_app nologin;
exception when duplicate_object or unique_violation then null;
end
$$;
do $$
begin
    -- PostgreSQL 16 tells being a member of a role from being allowed to take it on.
    if not pg_has_role('pos_app', case when current_setting('server_version_num')::int < 160000 then 'MEMBER' else 'SET' end)
    then
        execute format('grant pos_app to %I', current_user);
    end if;
    execute format('grant usage on schema %I to pos_app', current_schema());
end
$$;
grant select, insert on account, merchant, store, payment, transfer to pos_app;
grant select, insert, update on terminal, wallet, wallet_device, activation to pos_app;
grant update (status) on merchant to pos_app;
