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

alter table transfer drop constraint transfer_kind;
alter table transfer
    -- A settlement has no customer.
    alter wallet_number drop not null,
    add constraint transfer_kind check (kind in
        ('payment', 'top_up', 'withdrawal', 'cancel', 'refund', 'fee', 'fee_return', 'settlement')),
    add constraint transfer_wallet check (wallet_number is not null or kind = 'settlement');

alter table api_key drop constraint api_key_scopes_check;
alter table api_key add constraint api_key_scopes check (scopes <@ array['refunds', 'cash', 'reports']);
