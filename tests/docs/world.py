"""Tills, a wallet and the default rules without a server, to check the rules in documents."""

import itertools
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from pos_server.business_days import CurrentDay
from pos_server.core.credentials import payment_code
from pos_server.core.credentials.device_keys import DeviceId, DeviceKind, Keyring, derive_device_key
from pos_server.core.payments.decide import decide
from pos_server.core.payments.operations import (
    Cancel,
    Confirm,
    CreateRefund,
    Decided,
    Entry,
    Expire,
    Operation,
    Outcome,
    Refunded,
    Refused,
    Reject,
    Scan,
)
from pos_server.core.payments.payment import Payment
from pos_server.core.payments.rules import Rules
from pos_server.core.payments.snapshot import (
    Acceptor,
    DeviceStatus,
    HouseAccount,
    MerchantStatus,
    Snapshot,
    TerminalStatus,
    Wallet,
    WalletDevice,
    WalletStatus,
)
from pos_server.settings import Settings
from tests.copies import replace

DEFAULTS = {name: option.default for name, option in Settings.model_fields.items()}
RULES = Settings.model_construct(**DEFAULTS).rules()
KEYRING = Keyring({"k1": bytes(range(32))}, current="k1")
TILL, OTHER_TILL, STRANGERS_TILL = 1001, 1002, 2001
MERCHANT, STRANGER = 5, 6
WALLET = 1_000_000_001
NOON_MS = 1_772_452_800_000  # 2026-03-02 12:00 UTC
HOUR_MS = 3_600_000


@dataclass(slots=True)
class World:
    """Two tills of a merchant, one of another, and a wallet with 20000.00 EUR and a PIN. The clock is set by hand."""

    rules: Rules = RULES
    now_ms: int = NOON_MS
    time_zone: str = "UTC"
    snapshot: Snapshot = field(default_factory=Snapshot)
    _ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        till = Acceptor(TerminalStatus.ACTIVE, MerchantStatus.ACTIVE, 7, "Corner Canteen", "Main hall")
        self.snapshot.terminals = {TILL: till, OTHER_TILL: till, STRANGERS_TILL: replace(till, merchant_account_id=9)}
        self.snapshot.back_offices = {MERCHANT: till}
        self.snapshot.house = {(account, "EUR"): 90 + index for index, account in enumerate(HouseAccount)}
        self.snapshot.wallets = {
            WALLET: Wallet(WALLET, 8, "EUR", 2_000_000, WalletStatus.ACTIVE, 1, pin_set=True, pin_generation=1)
        }
        self.snapshot.devices = {(WALLET, 0): WalletDevice(WALLET, 0, "k1", 1, DeviceStatus.ACTIVE, 0)}

    @property
    def wallet(self) -> Wallet:
        return self.snapshot.wallets[WALLET]

    def change_wallet(self, **fields: Any) -> None:
        self.snapshot.wallets[WALLET] = replace(self.wallet, **fields)

    def change_till(self, **fields: Any) -> None:
        self.snapshot.terminals[TILL] = replace(self.snapshot.terminals[TILL], **fields)

    def run(self, operation: Operation) -> Outcome:
        day_start_ms = CurrentDay(self.time_zone).start_ms(self.now_ms)
        [outcome], _ = decide([operation], self.snapshot, KEYRING, self.now_ms, self.rules, day_start_ms=day_start_ms)
        return outcome

    def code(self) -> str:
        """Return an unused code."""
        key = derive_device_key(KEYRING.keys["k1"], DeviceId(DeviceKind.WALLET, WALLET, 0), 1)
        step = payment_code.step_at(self.now_ms / 1000)
        mark = max(self.snapshot.devices[WALLET, 0].spent_mark + 1, payment_code.spent_mark(step, 0))
        return payment_code.make(key, WALLET, 0, *divmod(mark, payment_code.SEQ_MAX + 1))

    def id(self) -> UUID:
        return UUID(int=next(self._ids))

    def scan(self, amount_minor: int = 1000, *, typed: bool = False, **fields: Any) -> Decided:
        """Scan a new code for a new order; `fields` override its values. Typed or large payments are pending."""
        payment_id = self.id()
        scan = Scan(
            payment_id=payment_id,
            terminal_number=TILL,
            merchant_id=MERCHANT,
            reference=f"order-{payment_id.int}",
            amount_minor=amount_minor,
            currency="EUR",
            code=self.code(),
            entry=Entry.TYPED if typed else Entry.SCANNED,
        )
        outcome = self.run(replace(scan, **fields))
        assert isinstance(outcome, Decided)
        return outcome

    def archive(self, payment: Payment) -> Payment:
        """Remove a payment from the ledger; its id and its order stay in use."""
        self.snapshot.archived.add(payment.key)
        return self.snapshot.payments.pop(payment.key)

    def pending(self, **fields: Any) -> Payment:
        """Make a payment that waits for the PIN."""
        return self.scan(typed=True, **fields).payment

    def confirm(self, payment: Payment, *, right: bool = True) -> Outcome:
        return self.run(
            Confirm(
                payment_id=payment.payment_id,
                merchant_id=payment.merchant_id,
                wallet_number=WALLET,
                slot=0,
                version=payment.version,
                pin_correct=right,
                pin_generation=self.wallet.pin_generation,
            )
        )

    def reject(self, payment: Payment) -> Outcome:
        return self.run(Reject(payment.payment_id, payment.merchant_id, WALLET, 0))

    def expire(self, payment: Payment) -> Outcome:
        self.now_ms = max(self.now_ms, payment.expires_at_ms or 0)
        return self.run(Expire(payment.payment_id, payment.merchant_id))

    def cancel(
        self,
        payment_id: UUID | None = None,
        *,
        reference: str | None = None,
        till: int = TILL,
        merchant: int = MERCHANT,
    ) -> Outcome:
        return self.run(Cancel(till, merchant, "EUR", payment_id, reference, tombstone_id=self.id()))

    def refund(self, payment: Payment, amount_minor: int, *, refund_id: UUID | None = None) -> Outcome:
        return self.run(CreateRefund(refund_id or self.id(), payment.payment_id, MERCHANT, TILL, amount_minor))


def verdict(outcome: Outcome) -> str:
    """Return an outcome as one word: the error code, `refunded`, the decline code, or the status."""
    if isinstance(outcome, Refused):
        return outcome.code.value
    if isinstance(outcome, Refunded):
        return "refunded"
    return (outcome.payment.decline_code or outcome.payment.status).value


def payment_of(outcome: Outcome) -> Payment:
    """Return the payment of an outcome, which must not be a refusal."""
    assert not isinstance(outcome, Refused)
    return outcome.payment
