-- Every movement of money has a purpose, a kind and two accounts: sales and their fees, cash that comes and goes.

alter table merchant
    -- Of a sale: hundredths of a percent, and a fixed part.
    add fee_bps integer not null default 0 check (fee_bps between 0 and 10000),
    add fee_fixed_minor bigint not null default 0 check (fee_fixed_minor >= 0),
    -- When a business day ends: this time of the day in this zone.
    add time_zone text not null default 'UTC',
    add cut_off time not null default '00:00';
grant update (fee_bps, fee_fixed_minor, time_zone, cut_off) on merchant to pos_app;

-- What a back office does through the API has no terminal.
alter table payment
    alter terminal_number drop not null,
    add purpose text not null default 'sale' check (purpose in ('sale', 'top_up', 'withdrawal')),
    add fee_minor bigint not null default 0 check (fee_minor between 0 and amount_minor),
    add constraint payment_fee check (fee_minor = 0 or purpose = 'sale'),
    add constraint payment_refund check (refunds = 0 or purpose = 'sale');

drop trigger payment_is_fixed on payment;
create trigger payment_is_fixed before update on payment for each row
    when ((old.id, old.merchant_id, old.currency) is distinct from (new.id, new.merchant_id, new.currency)
        or old.fingerprint is not null
        and (old.fingerprint, old.terminal_number, old.wallet_number, old.reference, old.amount_minor, old.purpose,
                old.fee_minor)
            is distinct from (new.fingerprint, new.terminal_number, new.wallet_number, new.reference, new.amount_minor,
                new.purpose, new.fee_minor))
    execute function payment_is_fixed();

alter table transfer drop constraint transfer_kind;
alter table transfer
    -- A settlement has no customer.
    alter wallet_number drop not null,
    add constraint transfer_kind check (kind in
        ('payment', 'top_up', 'withdrawal', 'cancel', 'refund', 'fee', 'fee_return', 'settlement')),
    add constraint transfer_wallet check (wallet_number is not null or kind = 'settlement');

alter table api_key drop constraint api_key_scopes_check;
alter table api_key add constraint api_key_scopes check (scopes <@ array['refunds', 'cash', 'reports']);

-- The house has an account of each kind for every currency that is in use.
insert into account (kind, name, currency)
select 'house', name, currency
from unnest(array['cash_in', 'payout', 'fees', 'settlement']) as name,
    (select currency from merchant union select currency from wallet) as used
on conflict (name, currency) where kind = 'house' do nothing;

-- Every top-up is a payment. Those of before are laid to the first merchant.
insert into payment (id, fingerprint, merchant_id, wallet_number, reference, amount_minor, currency, status, version,
    changed_at, approved_at, purpose)
select x.source_id, 'migrated', first.id, x.wallet_number, 'top-up-' || x.source_id, x.amount_minor, x.currency,
    'approved', 1, x.created_at, x.created_at, 'top_up'
from transfer x cross join (select min(id) as id from merchant) as first
where x.kind = 'top_up' and first.id is not null;
