"""Falsifications of a ledger (whole_ledger.py), and the finding that names each; columns without one, with the reason.

A falsification changes columns of one row, as somebody with all privileges can. Contains no tests.
"""

import re
from dataclasses import dataclass

AUDIT, SEALS = "audit", "seals"
PIN = "credentials of devices and PINs: only devices and customers have the other half"
TERMS = "a decision of the operator: the ledger stores only its current value"
INPUT = "input of a person or a till: nothing else in the ledger repeats it"
LOCK = "guards against concurrent changes and repeats: no fact about money"
NAME = "a name for people"
NOTES = "notes of the incremental audit, which no other audit believes"
SCHEMA = "compared with the program when a command starts"


@dataclass(frozen=True, slots=True)
class Falsification:
    """Changes of one row, and the check that names `offender`. `<name>` stands for an id of the ledger."""

    table: str
    changes: str
    row: str
    check: str
    offender: str
    # The check is one of `pos-server audit`, or of `audit --seals --archive DIR`.
    by: str = AUDIT

    @property
    def columns(self) -> set[tuple[str, str]]:
        """The changed columns, with their table."""
        return {(self.table, column) for column in re.findall(r"(?:^|, )(\w+) = ", self.changes)}

    @property
    def statement(self) -> str:
        return f"update {self.table} set {self.changes} where {self.row}"


def _of(table: str, row: str, offender: str, *cases: tuple[str, str] | tuple[str, str, str]) -> list[Falsification]:
    """Return falsifications of one row: changes, check, and the offender if it is another one."""
    return [Falsification(table, case[0], row, case[1], case[2] if len(case) > 2 else offender) for case in cases]


def _sealed(table: str, row: str, *cases: tuple[str, str]) -> list[Falsification]:
    return [Falsification(table, changes, row, "seals", offender, SEALS) for changes, offender in cases]


NEW_ID = "'00000000-0000-0000-0000-000000000009'"
_STATEMENT = _of(
    "settlement",
    "id = '<statement>'",
    "<statement>",
    (f"id = {NEW_ID}", "settlements", NEW_ID.strip("'")),
    ("merchant_id = <merchant>, business_date = '2000-01-01'", "settlements"),
    ("business_date = business_date - 1", "settlements", "<next_statement>"),
    ("currency = 'USD'", "settlements"),
    ("starts_at = starts_at + interval '23 hours'", "settlements"),
    ("ends_at = ends_at + interval '1 second'", "settlements", "<next_statement>"),
    ("opening_minor = opening_minor + 5, closing_minor = closing_minor + 5", "settlements"),
    ("opening_minor = 5, paid_out_minor = paid_out_minor + 5", "settlements"),
    ("sales = sales + 1", "settlements"),
    ("sales = sales + 1, cancels = cancels + 1", "settlements"),
    ("sales_minor = sales_minor + 10, refunds_minor = refunds_minor + 10", "settlements"),
    ("sales_minor = sales_minor - 10, cancels_minor = cancels_minor - 10", "settlements"),
    ("fees_minor = fees_minor + 3, fees_returned_minor = fees_returned_minor + 3", "settlements"),
    ("cancels_minor = cancels_minor + 1, refunds_minor = refunds_minor - 1", "settlements"),
    ("cancels = 0", "settlements"),
    ("refunds = refunds + 1", "settlements"),
    ("sales_minor = sales_minor + 1, net_minor = net_minor + 1, closing_minor = closing_minor + 1", "settlements"),
    ("net_minor = net_minor + 1, fees_minor = fees_minor - 1, closing_minor = closing_minor + 1", "settlements"),
    ("paid_out_minor = paid_out_minor - 1, closing_minor = closing_minor + 1", "settlements"),
    ("created_at = created_at - interval '1 second'", "settlements"),
    ("created_at = now() + interval '1 day'", "settlements"),
)
_STATEMENT += _of(
    "settlement",
    "id = '<next_statement>'",
    "<next_statement>",
    ("starts_at = starts_at - interval '1 second'", "settlements"),
    ("starts_at = starts_at + interval '1 second'", "settlements"),
)
_SHIFTS = [
    *_of(
        "shift",
        "id = '<shift>'",
        "<shift>",
        (f"id = {NEW_ID}", "shifts_exist"),
        ("merchant_id = <kiosk>", "shifts"),
        ("terminal_number = <till_1>", "shifts_exist"),
        ("number = 7", "shifts"),
        ("opened_at = opened_at + interval '1 day', closed_at = closed_at + interval '2 days'", "shifts"),
        ("closed_at = closed_at + interval '4 days'", "shifts", "<shift_today>"),
        ("closed_at = closed_at - interval '1 hour'", "shifts"),
        ("closed_at = now() + interval '4 days'", "shifts"),
        ("figures = jsonb_set(figures, '{sale,0}', '9')", "shifts"),
        ("figures = jsonb_set(figures, '{refund,1}', '9')", "shifts"),
        ("figures = figures - 'expired'", "shifts"),
        ("figures = figures || '{\"withdrawal\": [1, 100]}'", "shifts"),
    ),
    *_of("shift", "id = '<shift_today>'", "<shift_today>", ("closed_at = now()", "open_shifts")),
    *_of("shift", "id = '<shift_today>'", "<shift_today>", ("opened_at = now() - interval '30 days'", "shifts")),
]
_PAYMENTS = [
    *_of(
        "payment",
        "id = '<paid>'",
        "<paid>",
        (f"id = {NEW_ID}", "payments_paid", NEW_ID.strip("'")),
        ("merchant_id = <kiosk>", "payments_paid"),
        ("terminal_number = (select max(number) from terminal)", "owners"),
        ("terminal_number = 77", "owners"),
        ("wallet_number = wallet_number + 1", "payments_paid"),
        ("amount_minor = amount_minor + 1", "payments_paid"),
        ("currency = 'USD'", "payments_paid"),
        ("status = 'canceled'", "cancels_paid"),
        ("status = 'declined', decline_code = 'code_used'", "payments_sound"),
        ("status = 'expired'", "payments_sound"),
        ("purpose = 'top_up'", "payments_paid"),
        ("fee_minor = 1", "fees"),
        ("version = version + 1", "payments_sound"),
        ("approved_at = approved_at + interval '1 hour'", "times"),
        ("approved_at = approved_at - interval '1 hour', changed_at = changed_at - interval '1 hour'", "times"),
        ("changed_at = changed_at + interval '1 hour'", "payments_sound"),
        ("changed_at = now() + interval '1 day'", "payments_sound"),
        ("expires_at = approved_at - interval '1 second'", "payments_sound"),
        ("pin_failures = 1", "payments_sound"),
        ("refunded_minor = 5, refunds = 1", "refunds_within"),
        ("paid_by = id", "paid_by"),
        ("shift_id = '<shift>'", "shifts", "<shift>"),
        (f"shift_id = {NEW_ID}", "shifts_exist", NEW_ID.strip("'")),
        ("canceled_shift_id = '<shift>'", "payments_sound"),
    ),
    *_of("payment", "id = '<sale>'", "<shift>", ("shift_id = null", "shifts")),
    *_of("payment", "id = '<undone>'", "<shift>", ("canceled_shift_id = null", "shifts")),
    *_of("payment", "id = '<undone>'", "<undone>", ("changed_at = changed_at - interval '1 hour'", "times")),
    *_of("payment", "id = '<repaid>'", "<repaid>", ("changed_at = changed_at + interval '1 hour'", "times")),
    *_of("payment", "id = '<repaid>'", "<repaid>", ("refunded_minor = refunded_minor + 1", "refunds_within")),
    *_of("payment", "id = '<by_pin>'", "<by_pin>", ("pin_failures = 0", "payments_sound")),
    *_of("payment", "id = '<expired>'", "<expired>", ("status = 'canceled'", "shifts", "<shift>")),
    *_of("payment", "id = '<expired>'", "<expired>", ("expires_at = changed_at + interval '1 h'", "payments_sound")),
    *_of("payment", "id = '<unpaid>'", "<unpaid>", ("decline_code = 'rich_enough'", "payments_sound")),
    *_of("payment", "id = '<unpaid>'", "<unpaid>", ("paid_by = '<repaid>'", "paid_by")),
    *_of("payment", "id = '<unpaid>'", "<unpaid>", ("paid_by = null", "payments_sound")),
    *_of("payment", "id = '<unpaid>'", "<unpaid>", ("reference = 'another order'", "paid_by")),
    *_of("payment", "id = '<unpaid>'", "<unpaid>", ("amount_minor = amount_minor + 1", "shifts", "<shift>")),
    *_of("payment", "id = '<with_fee>'", "<with_fee>", ("fee_minor = fee_minor + 1", "fees")),
]
_REFUNDS = _of(
    "refund",
    "id = '<refund>'",
    "<refund>",
    (f"id = {NEW_ID}", "refunds_paid"),
    ("payment_id = '<paid>'", "refunds_within", "<paid>"),
    ("merchant_id = <kiosk>", "owners"),
    ("terminal_number = (select max(number) from terminal)", "owners"),
    ("wallet_number = wallet_number - 1", "refunds_paid"),
    ("amount_minor = amount_minor - 1", "refunds_paid"),
    ("currency = 'USD'", "refunds_paid"),
    ("created_at = created_at + interval '1 hour'", "times"),
    ("created_at = now() + interval '1 day'", "future", "refund <refund>"),
    ("shift_id = '<shift>'", "shifts", "<shift>"),
)
_TRANSFERS = [
    *_of(
        "transfer",
        "id = <transfer_of_paid>",
        "<paid>",
        ("id = 777777", "horizons", "transfer 777777"),
        ("kind = 'top_up'", "payments_paid"),
        (f"source_id = {NEW_ID}", "transfers_owed", "<transfer_of_paid>"),
        ("debit_account_id = 777777", "accounts_exist", "<transfer_of_paid>"),
        ("credit_account_id = <kiosk_account>", "payments_paid"),
        ("credit_account_id = <kiosk_account>", "rollup", "<kiosk_account>"),
        ("amount_minor = amount_minor + 1", "payments_paid"),
        ("currency = 'USD'", "accounts_exist", "<transfer_of_paid>"),
        ("wallet_number = wallet_number + 1", "payments_paid"),
        ("merchant_id = <kiosk>", "transfers_owed", "<transfer_of_paid>"),
        ("created_at = created_at + interval '1 second'", "times"),
        ("created_at = now() + interval '1 day'", "future", "transfer <transfer_of_paid>"),
    ),
    *_of("transfer", "kind = 'cancel' and source_id = '<canceled>'", "<canceled>", ("kind = 'refund'", "cancels_paid")),
    *_of("transfer", "kind = 'fee' and source_id = '<with_fee>'", "<with_fee>", ("amount_minor = 1", "fees")),
    *_of("transfer", "id = <payout>", "<statement>", ("amount_minor = amount_minor - 1", "settlements")),
    *_of("transfer", "id = <payout>", "<statement>", ("created_at = created_at + interval '1 s'", "settlements")),
    *_of("transfer", "id = <payout>", NEW_ID.strip("'"), (f"source_id = {NEW_ID}", "payouts")),
    *_sealed(
        "transfer",
        "id = <transfer_of_paid>",
        ("amount_minor = amount_minor + 1", "transfer <transfer_of_paid> was changed"),
        ("id = 777777", "transfer <transfer_of_paid> was removed"),
    ),
]
_WALLETS = [
    *_of(
        "wallet",
        "number = <wallet_0>",
        "<wallet_0>",
        ("number = number + 77", "owners", "<paid>"),
        ("account_id = account_id + 7777", "directory", "wallet <wallet_0>"),
        ("name = 'Mallory'", "directory", "wallet <wallet_0>"),
        ("currency = 'USD'", "directory", "wallet <wallet_0>"),
        ("balance_minor = balance_minor + 1", "balances"),
        ("day_start = now() + interval '7 days'", "day_counters"),
        ("day_start = day_start - interval '4 days'", "day_counters"),
        ("day_spent_minor = day_spent_minor - 1", "day_counters"),
        ("day_spent_minor = 0", "day_counters"),
        ("day_pin_free_minor = 0", "day_counters"),
        ("day_pin_free_count = day_pin_free_count - 1", "day_counters"),
        ("pin_failures = -1", "day_counters"),
    ),
    *_of("wallet_device", "wallet_number = <wallet_0>", "activation of wallet <wallet_0>", ("slot = 7", "directory")),
    *_of(
        "wallet_device",
        "wallet_number = <wallet_0>",
        "device 0 of wallet 77",
        ("wallet_number = 77", "directory"),
    ),
    *_of(
        "wallet_device", "wallet_number = <wallet_0>", "device 0 of wallet <wallet_0>", ("generation = 0", "directory")
    ),
    *_of(
        "activation",
        "kind = 'wallet' and number = <wallet_0>",
        "activation of wallet <wallet_0>",
        ("kind = 'terminal'", "directory", "activation of terminal <wallet_0>"),
        ("number = 77", "directory", "activation of wallet 77"),
        ("slot = 7", "directory"),
        ("request_id = null", "directory"),
        ("kid = null", "directory"),
        ("generation = 5", "directory"),
    ),
]
_PLACES = [
    *_of(
        "account",
        "id = <account>",
        "wallet <wallet_0>",
        ("id = 777777", "directory"),
        ("kind = 'merchant'", "directory"),
        ("name = 'Mallory'", "directory"),
        ("currency = 'USD'", "directory"),
    ),
    *_of("account", "kind = 'house' and name = 'fees'", "house account fees EUR", ("name = 'bonus'", "directory")),
    *_of(
        "merchant",
        "id = <merchant>",
        "merchant <merchant>",
        ("id = 777", "directory", "store <store>"),
        ("account_id = 777777", "directory"),
        ("name = 'Mallory'", "directory"),
        ("currency = 'USD'", "directory"),
    ),
    *_of("store", "id = <store>", "<paid>", ("merchant_id = <kiosk>", "owners")),
    *_of("store", "id = <store>", "store <store>", ("merchant_id = 777", "directory")),
    *_of("store", "id = <store>", "terminal <till_0>", ("id = 777", "directory")),
    *_of(
        "terminal",
        "number = <till_0>",
        "<paid>",
        ("number = 77", "owners"),
        ("store_id = (select max(id) from store)", "owners"),
        ("store_id = 77", "directory", "terminal <till_0>"),
        ("kid = null", "directory", "terminal <till_0>"),
        ("generation = 0", "directory", "terminal <till_0>"),
        ("shift_id = null", "open_shifts", "<shift_today>"),
        ("shift_id = '<shift>'", "open_shifts", "<shift>"),
    ),
    *_of(
        "api_key",
        "id = <key>",
        "API key <key>",
        ("merchant_id = 777", "directory"),
        ("created_at = now() + interval '1 day'", "future"),
        ("last_used_at = now() + interval '1 day'", "future"),
    ),
    *_of("idempotency_key", "true", "request key", ("created_at = now() + interval '1 day'", "future")),
    *_of("migration", "number = 1", "migration 1", ("applied_at = now() + interval '1 day'", "future")),
]
_HORIZONS = [
    *_of("rollup_horizon", "true", "roll-up", ("last_id = 777777", "horizons")),
    *_of("rollup_horizon", "true", "<cash_in>", ("last_id = 20", "rollup")),
    *_of("account_rollup", "account_id = <kiosk_account>", "<kiosk_account>", ("balance_minor = 1", "rollup")),
    *_of("account_rollup", "account_id = <cash_in>", "<cash_in>", ("account_id = 777777", "rollup")),
    *_of(
        "seal",
        "number = <seal>",
        "seal <seal>",
        ("number = number + 100", "horizons", "seal 10<seal>"),
        ("day = day + 30", "horizons"),
        ("first_id = first_id + 1", "horizons"),
        ("last_id = last_id + 777777", "horizons"),
        ("transfers = transfers - 1", "horizons"),
        ("previous_hash = sha256('x')", "horizons"),
        ("sealed_at = now() + interval '1 day'", "horizons"),
        ("sealed_at = sealed_at - interval '1 year'", "horizons"),
    ),
    *_sealed(
        "seal",
        "number = <seal>",
        ("digests = set_byte(digests, 9, 1)", "seal <seal> of"),
        ("hash = sha256('x')", "seal <seal> of"),
    ),
    *_of(
        "archive_part",
        "number = <part>",
        "part <part>",
        ("number = number + 5", "horizons", "part 7"),
        ("before = archived_at + interval '1 day'", "horizons"),
        ("archived_at = before - interval '1 day'", "horizons"),
        ("file = 'elsewhere.gz'", "horizons"),
        ("payments = payments + 1", "archive", "payments"),
        ("refunds = refunds + 1", "archive", "refunds"),
        ("settlements = settlements - 1", "archive", "settlements"),
        ("transfers = 777777", "horizons"),
    ),
    *_sealed(
        "archive_part",
        "number = <part>",
        ("sha256 = sha256('x')", "payments-000002.jsonl.gz was changed"),
        ("transfers = transfers - 1", "payments-000002.jsonl.gz"),
    ),
    *_of("archived_balance", "account_id = <account>", "<wallet_0>", ("balance_minor = 0", "balances")),
    *_of("archived_balance", "account_id = <account>", "EUR", ("account_id = 777777", "sum_is_zero")),
    *_sealed(
        "archived_name",
        "id = '<paid_archived>'",
        ("merchant_id = <kiosk>", "payment <paid_archived>"),
        (f"id = {NEW_ID}", "payment <paid_archived>"),
        ("status = 'canceled'", "payment <paid_archived>"),
        ("reference = null", "payment <paid_archived>"),
    ),
    *_sealed(
        "archived_refund",
        "id = '<refund_archived>'",
        (f"id = {NEW_ID}", "refund <refund_archived>"),
        ("merchant_id = <kiosk>", "refund <refund_archived>"),
    ),
    *_sealed("ledger", "true", ("id = gen_random_uuid()", "payments-000001.jsonl.gz belongs to another ledger")),
]
FALSIFICATIONS = [
    *_STATEMENT,
    *_SHIFTS,
    *_PAYMENTS,
    *_REFUNDS,
    *_TRANSFERS,
    *_WALLETS,
    *_PLACES,
    *_HORIZONS,
]

# Columns whose falsification nothing names, and the reason. docs/operations.md has the same list.
UNPROVED = {
    INPUT: "payment.fingerprint shift.operator shift.opening_cash_minor shift.counted_cash_minor",
    TERMS: "merchant.status merchant.fee_bps merchant.fee_fixed_minor merchant.time_zone merchant.cut_off "
    "terminal.status wallet.status wallet_device.status wallet.payment_minor_max wallet.day_minor_max "
    "wallet.pin_free_minor_max wallet.pin_free_day_count_max wallet.pin_free_day_minor_max wallet.top_up_minor_max "
    "wallet.balance_minor_max api_key.role api_key.ends_at",
    PIN: "wallet.pin_hash wallet.pin_kid wallet.pin_generation wallet.pin_locked_until wallet_device.kid "
    "wallet_device.spent_mark activation.code_hash activation.expires_at api_key.id api_key.key_hash",
    LOCK: "wallet.version wallet.pin_request_id wallet.pin_request_done idempotency_key.tenant idempotency_key.key "
    "idempotency_key.fingerprint idempotency_key.answer idempotency_key.kid ledger.published_sha256 ledger.only_row "
    "rollup_horizon.only_row payment.transfers_named refund.transfers_named",
    NAME: "store.name terminal.name api_key.name",
    SCHEMA: "migration.number migration.name migration.checksum",
    NOTES: "audited_seal.seal_number audited_seal.seal_hash audited_seal.last_id audited_seal.changed_to "
    "audited_seal.transfers audited_seal.payments audited_seal.missing audited_seal.audited_at audited_seal.audited_by "
    "audited_balance.account_id audited_balance.balance_minor",
}
