-- Old payments are moved out into files (pos_server/ledger/archive.py). What stays: their ids, so that each is used once for
-- ever; the references they occupy; and what their transfers came to, so that balances can still be proved.

-- One of each archived payment. `reference` is kept of those that occupy their order for ever: approved or canceled.
create table archived_name (
    merchant_id bigint not null,
    id uuid primary key,
    status text not null check (status in ('approved', 'declined', 'canceled', 'expired')),
    reference text,
    constraint archived_name_reference check (reference is null or status in ('approved', 'canceled'))
);
create unique index archived_reference on archived_name (merchant_id, reference) where reference is not null;

-- One of each archived refund. A table of its own: a refund may have the id of a payment.
create table archived_refund (
    id uuid primary key
);

-- The files, in order; `sha256` is of the whole file. `transfers` counts those of settlements too.
create table archive_part (
    number bigint primary key,
    before timestamptz not null,
    payments bigint not null,
    refunds bigint not null,
    settlements bigint not null,
    transfers bigint not null,
    file text not null,
    sha256 bytea not null,
    archived_at timestamptz not null
);

-- Credits less debits of all archived transfers.
create table archived_balance (
    account_id bigint primary key,
    balance_minor bigint not null
);

-- A unit is a payment with its refunds, found from the payment.
create index refund_payment on refund (payment_id);

grant select on archived_name, archived_refund, archive_part, archived_balance to pos_app;
