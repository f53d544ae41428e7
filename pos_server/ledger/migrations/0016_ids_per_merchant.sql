-- Ids of payments, refunds and shifts are unique per merchant: no tenant can occupy or touch an id of another tenant.
-- Stored payments, refunds and transfers keep their values and are not rewritten. Most of the time goes into indexes.
--
-- `id` comes first in the keys. New rows still arrive at one end of the index, and an id alone can be looked up.
alter table payment drop constraint payment_pkey, add primary key (id, merchant_id);
alter table refund drop constraint refund_pkey, add primary key (id, merchant_id);
alter table archived_name drop constraint archived_name_pkey, add primary key (id, merchant_id);

-- Null: archived before this migration, when the merchant was not recorded. No merchant can use such an id again.
alter table archived_refund drop constraint archived_refund_pkey, add merchant_id bigint;
create unique index archived_refund_id on archived_refund (id, merchant_id) nulls not distinct;

-- A transfer names the merchant of its source. Null: stored before this migration, when `source_id` was unique alone.
-- A payment or refund of that time is recognized by `transfers_named`. The default of stored rows costs no rewrite.
alter table transfer add merchant_id bigint;
alter table payment add transfers_named boolean not null default false;
alter table payment alter transfers_named set default true;
alter table refund add transfers_named boolean not null default false;
alter table refund alter transfers_named set default true;

drop index transfer_source;
create unique index transfer_source on transfer (source_id, kind, merchant_id) nulls not distinct;

-- Whether a transfer with the id of a payment or refund as its source belongs to it.
create function is_transfer_of(transfer_merchant_id bigint, merchant_id bigint, transfers_named boolean) returns boolean
    language sql immutable parallel safe
    return transfer_merchant_id = merchant_id or (transfer_merchant_id is null and not transfers_named);

-- Not valid: stored rows have no merchant. Every new row is checked.
alter table transfer drop constraint transfer_is_sound;
drop function transfer_is_sound;
create function transfer_is_sound(
    kind text, debit_account_id bigint, credit_account_id bigint, amount_minor bigint, wallet_number bigint,
    merchant_id bigint
) returns boolean language plpgsql immutable parallel safe as $$
begin
    return kind in ('payment', 'top_up', 'withdrawal', 'cancel', 'refund', 'fee', 'fee_return', 'settlement')
        and amount_minor > 0
        and debit_account_id <> credit_account_id
        -- A settlement has no customer.
        and (wallet_number is not null or kind = 'settlement')
        and merchant_id is not null;
end
$$;
alter table transfer add constraint transfer_is_sound check (transfer_is_sound(kind, debit_account_id,
    credit_account_id, amount_minor, wallet_number, merchant_id)) not valid;

-- concat_ws skips a null, so digests of stored transfers remain the same.
create or replace function transfer_digest(transfer) returns bytea language sql stable parallel safe
    return substring(sha256(convert_to(concat_ws('|', $1.id, $1.kind, $1.source_id, $1.debit_account_id,
        $1.credit_account_id, $1.amount_minor, $1.currency, coalesce($1.wallet_number, 0),
        (extract(epoch from $1.created_at) * 1000000)::bigint, $1.merchant_id), 'UTF8')) for 8);

alter type new_transfer add attribute merchant_id bigint;

-- Shifts are few, so each stored one gets its merchant.
alter table shift add merchant_id bigint;
update shift h set merchant_id = s.merchant_id
from terminal t join store s on s.id = t.store_id where t.number = h.terminal_number;
alter table shift alter merchant_id set not null;
alter table shift drop constraint shift_pkey, add primary key (id, merchant_id);
drop trigger shift_is_fixed on shift;
create trigger shift_is_fixed before update on shift for each row
    when ((old.id, old.merchant_id, old.terminal_number, old.number, old.operator, old.opening_cash_minor,
                old.opened_at)
            is distinct from
            (new.id, new.merchant_id, new.terminal_number, new.number, new.operator, new.opening_cash_minor,
                new.opened_at)
        or old.closed_at is not null
            and (old.closed_at, old.counted_cash_minor) is distinct from (new.closed_at, new.counted_cash_minor)
        or old.figures is not null and old.figures is distinct from new.figures)
    execute function shift_is_fixed();
