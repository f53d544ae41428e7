-- Most of what a payment costs that is alone in its batch is what Postgres prepares for a statement and then throws away.
-- This takes a third of it (2.95 to 1.93 million instructions).

-- What `load_book` finds of a payment and of the till that it was made at, as one value each.
create type stored_payment as (
    id uuid, fingerprint bytea, terminal_number bigint, merchant_id bigint, payment_wallet_number bigint, reference text,
    amount_minor bigint, currency text, payment_status text, decline_code text, paid_by uuid, payment_version integer,
    changed_at_ms bigint, approved_at_ms bigint, expires_at_ms bigint, payment_pin_failures integer, refunded_minor bigint,
    refunds integer, purpose text, fee_minor bigint, shift_id uuid, canceled_shift_id uuid
);
create type other_till as (number bigint, status text, shift_id uuid, store_name text);

-- A table's checks are read and prepared anew by every statement that writes to it, a domain's and a function's once in a
-- session. So what one column may hold is its domain, and what a row's columns say to each other is one function.
create domain minor_from_0 as bigint check (value >= 0);
create domain currency_code as text check (value ~ '^[A-Z]{3}$');
create domain wallet_status as text check (value in ('active', 'frozen', 'closed'));
create domain device_status as text check (value in ('active', 'revoked'));
create domain device_slot as smallint check (value between 0 and 9);

alter table wallet
    drop constraint wallet_balance_minor_check, alter balance_minor type minor_from_0,
    drop constraint wallet_day_spent_minor_check, alter day_spent_minor type minor_from_0,
    drop constraint wallet_payment_minor_max_check, alter payment_minor_max type minor_from_0,
    drop constraint wallet_day_minor_max_check, alter day_minor_max type minor_from_0,
    drop constraint wallet_pin_free_minor_max_check, alter pin_free_minor_max type minor_from_0,
    drop constraint wallet_pin_free_day_minor_max_check, alter pin_free_day_minor_max type minor_from_0,
    drop constraint wallet_top_up_minor_max_check, alter top_up_minor_max type minor_from_0,
    drop constraint wallet_balance_minor_max_check, alter balance_minor_max type minor_from_0,
    drop constraint wallet_pin_free_day_count_max_check, alter pin_free_day_count_max type minor_from_0,
    drop constraint wallet_currency_check, alter currency type currency_code,
    drop constraint wallet_status_check, alter status type wallet_status;

alter table wallet_device
    drop constraint wallet_device_slot_check, alter slot type device_slot,
    drop constraint wallet_device_status_check, alter status type device_status;

create function payment_is_sound(
    fingerprint bytea, wallet_number bigint, reference text, amount_minor bigint, status text, decline_code text,
    approved_at timestamptz, expires_at timestamptz, refunded_minor bigint, refunds integer, purpose text, fee_minor bigint
) returns boolean language plpgsql immutable parallel safe as $$
begin
    return status in ('pending', 'approved', 'declined', 'canceled', 'expired')
        and purpose in ('sale', 'top_up', 'withdrawal')
        -- Without a fingerprint it is a tombstone: canceled before it was scanned.
        and case when fingerprint is null
            then status = 'canceled' and amount_minor = 0 and wallet_number is null
            else amount_minor > 0 and reference is not null and (wallet_number is not null or status = 'declined')
        end
        and (decline_code is not null) = (status = 'declined')
        and (status <> 'approved' or approved_at is not null)
        and (status <> 'pending' or expires_at is not null)
        and fee_minor between 0 and amount_minor
        and refunded_minor between 0 and amount_minor
        and (refunded_minor > 0) = (refunds > 0)
        and (refunded_minor = 0 or status = 'approved')
        and (purpose = 'sale' or fee_minor = 0 and refunds = 0);
end
$$;

alter table payment
    drop constraint payment_status, drop constraint payment_purpose_check, drop constraint payment_amount,
    drop constraint payment_tombstone, drop constraint payment_reference, drop constraint payment_wallet,
    drop constraint payment_decline, drop constraint payment_approved, drop constraint payment_pending,
    drop constraint payment_check, drop constraint payment_refunded, drop constraint payment_fee,
    drop constraint payment_refund,
    add constraint payment_is_sound check (payment_is_sound(fingerprint, wallet_number, reference, amount_minor, status,
        decline_code, approved_at, expires_at, refunded_minor, refunds, purpose, fee_minor));

create function transfer_is_sound(
    kind text, debit_account_id bigint, credit_account_id bigint, amount_minor bigint, wallet_number bigint
) returns boolean language plpgsql immutable parallel safe as $$
begin
    return kind in ('payment', 'top_up', 'withdrawal', 'cancel', 'refund', 'fee', 'fee_return', 'settlement')
        and amount_minor > 0
        and debit_account_id <> credit_account_id
        -- A settlement has no customer.
        and (wallet_number is not null or kind = 'settlement');
end
$$;

alter table transfer
    drop constraint transfer_kind, drop constraint transfer_amount_minor_check, drop constraint transfer_check,
    drop constraint transfer_wallet,
    add constraint transfer_is_sound check (transfer_is_sound(kind, debit_account_id, credit_account_id, amount_minor,
        wallet_number));
