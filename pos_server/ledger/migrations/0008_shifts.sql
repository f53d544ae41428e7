-- What an operator does at a till between opening and closing it: a shift, and the figures it closed with.
create table shift (
    -- Made by the till, so that opening twice opens once.
    id uuid primary key,
    terminal_number bigint not null references terminal (number),
    -- Counts the shifts of a terminal.
    number bigint not null,
    operator text not null,
    opening_cash_minor bigint not null check (opening_cash_minor >= 0),
    opened_at timestamptz not null,
    closed_at timestamptz,
    counted_cash_minor bigint check (counted_cash_minor >= 0),
    -- Summed up right after the close, and never again: ledger/shifts.py.
    figures jsonb,
    unique (terminal_number, number),
    check (closed_at is not null or (figures is null and counted_cash_minor is null))
);
create unique index shift_open on shift (terminal_number) where closed_at is null;

create function shift_is_fixed() returns trigger language plpgsql as $$
begin
    raise exception 'shift %: what it was opened or closed with cannot change', old.id using errcode = '42501';
end
$$;
create trigger shift_is_fixed before update on shift for each row
    when ((old.id, old.terminal_number, old.number, old.operator, old.opening_cash_minor, old.opened_at)
            is distinct from
            (new.id, new.terminal_number, new.number, new.operator, new.opening_cash_minor, new.opened_at)
        or old.closed_at is not null
            and (old.closed_at, old.counted_cash_minor) is distinct from (new.closed_at, new.counted_cash_minor)
        or old.figures is not null and old.figures is distinct from new.figures)
    execute function shift_is_fixed();
grant select, insert on shift to pos_app;
grant update (closed_at, counted_cash_minor, figures) on shift to pos_app;

-- The shift that is open at a terminal. Whatever is added to it locks this row, so that closing it leaves nothing out.
alter table terminal add shift_id uuid;

alter table payment add shift_id uuid, add canceled_shift_id uuid;
alter table refund add shift_id uuid;
-- A shift's payments are found by their terminal and time; what was taken back in it may be of any terminal.
create index payment_canceled_shift on payment (canceled_shift_id) where canceled_shift_id is not null;
create index refund_shift on refund (shift_id) where shift_id is not null;

-- A payment's shift is that of its scan; that of its cancel is added once.
drop trigger payment_is_fixed on payment;
create trigger payment_is_fixed before update on payment for each row
    when ((old.id, old.merchant_id, old.currency) is distinct from (new.id, new.merchant_id, new.currency)
        or old.fingerprint is not null
        and (old.fingerprint, old.terminal_number, old.wallet_number, old.reference, old.amount_minor, old.purpose,
                old.fee_minor, old.shift_id)
            is distinct from (new.fingerprint, new.terminal_number, new.wallet_number, new.reference, new.amount_minor,
                new.purpose, new.fee_minor, new.shift_id)
        or old.canceled_shift_id is not null and old.canceled_shift_id is distinct from new.canceled_shift_id)
    execute function payment_is_fixed();
