-- A payment may wait for a PIN, be canceled, expire and be refunded; a wallet has a PIN, a day's allowance and limits.

-- Times are Unix milliseconds everywhere but in the rows.
create function unix_ms(timestamptz) returns bigint language sql stable parallel safe
    return (extract(epoch from $1) * 1000)::bigint;
create function from_unix_ms(bigint) returns timestamptz language sql immutable parallel safe
    return to_timestamp($1 / 1000.0);

alter table wallet
    -- Argon2id over HMAC-SHA256(pepper, …): see pos_server/pins.py. `pin_kid` names the master key of the pepper.
    add pin_hash text,
    add pin_kid text,
    add pin_generation integer not null default 0,
    -- The last request to change it, so that one that is sent again is not counted again, and whether it did.
    add pin_request_id uuid,
    add pin_request_done boolean not null default false,
    add pin_failures integer not null default 0,
    add pin_locked_until timestamptz not null default 'epoch',
    -- What was approved since `day_start`: in all, and of that without a PIN.
    add day_start timestamptz not null default 'epoch',
    add day_spent_minor bigint not null default 0 check (day_spent_minor >= 0),
    add day_pin_free_minor bigint not null default 0,
    add day_pin_free_count integer not null default 0,
    add check ((pin_hash is null) = (pin_kid is null));

-- A tombstone is a payment that was canceled before it was scanned: no fingerprint, no wallet, no amount.
alter table payment
    alter fingerprint drop not null,
    alter reference drop not null,
    add approved_at timestamptz,
    add expires_at timestamptz,
    add pin_failures integer not null default 0,
    add refunded_minor bigint not null default 0,
    add refunds integer not null default 0,
    drop constraint payment_amount_minor_check,
    drop constraint payment_check,
    drop constraint payment_check1,
    drop constraint payment_status_check;
update payment set approved_at = changed_at where status = 'approved';
alter table payment
    add constraint payment_status check (status in ('pending', 'approved', 'declined', 'canceled', 'expired')),
    add constraint payment_amount check (case when fingerprint is null then amount_minor = 0 else amount_minor > 0 end),
    add constraint payment_tombstone check (fingerprint is not null or (status = 'canceled' and wallet_number is null)),
    add constraint payment_reference check (reference is not null or fingerprint is null),
    add constraint payment_decline check ((decline_code is not null) = (status = 'declined')),
    add constraint payment_wallet check (wallet_number is not null or status = 'declined' or fingerprint is null),
    add constraint payment_approved check (status <> 'approved' or approved_at is not null),
    add constraint payment_pending check (status <> 'pending' or expires_at is not null),
    add constraint payment_refunded check (
        refunded_minor between 0 and amount_minor and (refunded_minor > 0) = (refunds > 0)
        and (refunded_minor = 0 or status = 'approved')
    );

-- At most one payment of an order is paid, pending or canceled: the others were declined or have expired.
drop index payment_open_reference;
create unique index payment_open_reference on payment (merchant_id, reference)
    where status in ('pending', 'approved', 'canceled');
-- For a till that asks after an order by its reference. Approved payments, nearly all of them, do not pay for it.
create index payment_failed_reference on payment (merchant_id, reference, changed_at)
    where status in ('declined', 'expired');
-- What the sweeper looks through, and what a wallet that connects is asked for.
create index payment_pending on payment (expires_at) where status = 'pending';
create index payment_pending_wallet on payment (wallet_number) where status = 'pending';

create table refund (
    id uuid primary key,
    payment_id uuid not null,
    merchant_id bigint not null,
    -- Null when it came through the API.
    terminal_number bigint,
    wallet_number bigint not null,
    amount_minor bigint not null check (amount_minor > 0),
    currency text not null,
    created_at timestamptz not null
);

alter table transfer drop constraint transfer_kind_check;
alter table transfer add constraint transfer_kind check (kind in ('payment', 'cancel', 'refund', 'top_up'));

-- What a payment is about never changes, whoever asks; only a tombstone learns it, from the scan that comes late.
create function payment_is_fixed() returns trigger language plpgsql as $$
begin
    raise exception 'payment %: what it is about cannot change', old.id using errcode = '42501';
end
$$;
create trigger payment_is_fixed before update on payment for each row
    when ((old.id, old.merchant_id, old.currency) is distinct from (new.id, new.merchant_id, new.currency)
        or old.fingerprint is not null
        and (old.fingerprint, old.terminal_number, old.wallet_number, old.reference, old.amount_minor)
            is distinct from (new.fingerprint, new.terminal_number, new.wallet_number, new.reference, new.amount_minor))
    execute function payment_is_fixed();

grant select, insert, update on payment to pos_app;
grant select, insert on refund to pos_app;

-- A merchant's back office acts with a key of its own; only its hash is kept.
create table api_key (
    id bigint generated always as identity primary key,
    key_hash bytea not null unique,
    merchant_id bigint not null references merchant (id),
    name text not null,
    scopes text[] not null check (scopes <@ array['refunds']),
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);
grant select on api_key to pos_app;
