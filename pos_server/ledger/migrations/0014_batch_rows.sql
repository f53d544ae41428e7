-- The rows that a batch hands over, one array of each kind: an array for each column cost more to encode than the decision.
-- ledger/batch_rows.py makes them, with the attributes in this order.
create type operation_key as (
    payment_id uuid, terminal_number bigint, merchant_id bigint, reference text, wallet_number bigint, slot smallint
);
create type wallet_change as (
    seen_version bigint, number bigint, version bigint, balance_minor bigint, pin_failures integer,
    pin_locked_until_ms bigint, day_start_ms bigint, day_spent_minor bigint, day_pin_free_minor bigint,
    day_pin_free_count integer
);
create type spent_code as (wallet_number bigint, slot smallint, spent_mark bigint);
create type payment_change as (
    seen_version integer, payment_id uuid, fingerprint bytea, terminal_number bigint, merchant_id bigint,
    wallet_number bigint, reference text, amount_minor bigint, currency text, status text, decline_code text, paid_by uuid,
    version integer, approved_at_ms bigint, expires_at_ms bigint, pin_failures integer, refunded_minor bigint,
    refunds integer, purpose text, fee_minor bigint, shift_id uuid, canceled_shift_id uuid
);
create type new_refund as (
    refund_id uuid, payment_id uuid, merchant_id bigint, terminal_number bigint, wallet_number bigint,
    amount_minor bigint, currency text, shift_id uuid
);
create type new_transfer as (
    kind text, source_id uuid, debit_account_id bigint, credit_account_id bigint, amount_minor bigint, currency text,
    wallet_number bigint
);
create type joined_shift as (terminal_number bigint, shift_id uuid);

-- Times without a detour through decimals: to_timestamp takes a double in any case.
create or replace function unix_ms(timestamptz) returns bigint language sql stable parallel safe
    return (date_part('epoch', $1) * 1000)::bigint;
create or replace function from_unix_ms(bigint) returns timestamptz language sql immutable parallel safe
    return to_timestamp($1 / 1000::double precision);
