-- A wallet may have limits of its own, by the names of the server's; null: the server's holds. Columns of the wallet, not a
-- table: every payment reads the wallet, and nulls take no room in it.
alter table wallet
    add payment_minor_max bigint check (payment_minor_max >= 0),
    add day_minor_max bigint check (day_minor_max >= 0),
    add pin_free_minor_max bigint check (pin_free_minor_max >= 0),
    add pin_free_day_count_max bigint check (pin_free_day_count_max >= 0),
    add pin_free_day_minor_max bigint check (pin_free_day_minor_max >= 0),
    add top_up_minor_max bigint check (top_up_minor_max >= 0),
    add balance_minor_max bigint check (balance_minor_max >= 0);

-- A device's activation codes: which are still open, and those that end with its revocation.
create index activation_device on activation (kind, number, slot);
