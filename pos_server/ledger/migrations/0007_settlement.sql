-- What a merchant is owed for a business day, and the transfer that paid it. One a merchant and day, never changed.
create table settlement (
    id uuid primary key,
    merchant_id bigint not null references merchant (id),
    business_date date not null,
    currency text not null,
    starts_at timestamptz not null,
    ends_at timestamptz not null,
    opening_minor bigint not null,
    sales bigint not null,
    sales_minor bigint not null,
    cancels bigint not null,
    cancels_minor bigint not null,
    refunds bigint not null,
    refunds_minor bigint not null,
    fees_minor bigint not null,
    fees_returned_minor bigint not null,
    net_minor bigint not null
        check (net_minor = sales_minor - cancels_minor - refunds_minor - fees_minor + fees_returned_minor),
    paid_out_minor bigint not null check (paid_out_minor >= 0),
    closing_minor bigint not null check (closing_minor = opening_minor + net_minor - paid_out_minor),
    created_at timestamptz not null default now(),
    unique (merchant_id, business_date)
);
create index settlement_days on settlement (merchant_id, starts_at);
-- Finds a day's transfers without an entry for each of them.
create index transfer_created on transfer using brin (created_at) with (pages_per_range = 32);
grant select on settlement to pos_app;
