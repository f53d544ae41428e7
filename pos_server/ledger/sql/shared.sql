-- part: payment_columns
-- The columns from which ledger/rows.py makes a payment. The table's alias is p.
p.id, p.fingerprint, p.terminal_number, p.merchant_id, p.wallet_number as payment_wallet_number,
    p.reference, p.amount_minor, p.currency, p.status as payment_status, p.decline_code, p.paid_by,
    p.version as payment_version, unix_ms(p.changed_at) as changed_at_ms, unix_ms(p.approved_at) as approved_at_ms,
    unix_ms(p.expires_at) as expires_at_ms, p.pin_failures as payment_pin_failures, p.refunded_minor, p.refunds,
    p.purpose, p.fee_minor, p.shift_id, p.canceled_shift_id

-- part: wallet_columns
-- The columns of a wallet. The table's alias is w. wallet_limits is null without own limits, which saves decoding.
w.number as wallet_number, w.account_id, w.currency as wallet_currency, w.balance_minor,
    w.status as wallet_status, w.version as wallet_version, w.pin_hash is not null as pin_set, w.pin_generation,
    w.pin_failures, unix_ms(w.pin_locked_until) as pin_locked_until_ms, unix_ms(w.day_start) as day_start_ms,
    w.day_spent_minor, w.day_pin_free_minor, w.day_pin_free_count,
    case when coalesce(w.payment_minor_max, w.day_minor_max, w.pin_free_minor_max, w.pin_free_day_count_max,
        w.pin_free_day_minor_max, w.top_up_minor_max, w.balance_minor_max) is not null then jsonb_build_object(
        'payment_minor_max', w.payment_minor_max, 'day_minor_max', w.day_minor_max,
        'pin_free_minor_max', w.pin_free_minor_max, 'pin_free_day_count_max', w.pin_free_day_count_max,
        'pin_free_day_minor_max', w.pin_free_day_minor_max, 'top_up_minor_max', w.top_up_minor_max,
        'balance_minor_max', w.balance_minor_max) end as wallet_limits

-- part: refund_columns
r.id, r.payment_id, r.merchant_id, r.terminal_number, r.wallet_number, r.amount_minor, r.currency,
    unix_ms(r.created_at) as created_at_ms, r.shift_id

-- part: writer
-- Whether a lock (alias l of pg_locks) is that of another transaction that may add transfers.
l.locktype = 'relation' and l.granted and l.relation = 'transfer'::regclass
    and l.database = (select oid from pg_database where datname = current_database())
    and l.mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    and l.pid is distinct from pg_backend_pid()
