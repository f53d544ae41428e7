"""The server's side of the state machine: merchants and wallets, rules, and the interface of a ledger.

`MemoryLedger` keeps rows in dicts, `PostgresLedger` in a database through the server's own load and apply.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import pytest

from pos_server.core.payments.decide import decide
from pos_server.core.payments.operations import Operation, Outcome, Scan
from pos_server.core.payments.rules import Limits, Risk, Rules
from pos_server.core.payments.snapshot import Changeset, Snapshot
from tests.model import limits
from tests.model.records import Key
from tests.support import KEYRING

# Wallets as (currency, balance, number of devices); the last device of the last wallet is revoked.
WALLETS = [("EUR", 12_000, 2), ("EUR", 3_000, 1), ("JPY", 5_000, 2), ("EUR", 9_000, 2)]
# Merchants as (currency, number of terminals).
MERCHANTS = [("EUR", 2), ("EUR", 2), ("JPY", 1)]
# Fees of the merchants: basis points and a fixed part.
FEES = [(145, 7), (0, 0), (2_500, 1)]
REVOKED = (3, 1)


def risk(scan: Scan, wallet: object) -> Risk:
    """Decide by the amount: the risk hook of this server."""
    decisions = {limits.REJECTED_AMOUNT: Risk.REJECT, limits.ASKED_AMOUNT: Risk.ASK_PIN}
    return decisions.get(scan.amount_minor, Risk.ACCEPT)


def _limits(currency: str) -> Limits:
    allowed = limits.PER_CURRENCY[currency]
    return Limits(
        allowed["payment"],
        allowed["day"],
        allowed["free"],
        allowed["free_count"],
        allowed["free_day"],
        allowed["top_up"],
        allowed["balance"],
    )


RULES = Rules(
    limits=_limits("EUR"),
    currency_limits={"JPY": _limits("JPY")},
    risk=risk,
    code_expired_steps=limits.EXPIRED_STEPS,
    confirmation_ms=limits.CONFIRMATION,
    pin_payment_failures_max=limits.WRONG_PINS_OF_A_PAYMENT,
    pin_failures_max=limits.WRONG_PINS_OF_A_WALLET,
    pin_lock_ms=limits.PIN_LOCK,
    cancel_window_ms=limits.CANCEL_WINDOW,
    refund_window_ms=limits.REFUND_WINDOW,
    refunds_max=limits.REFUNDS_MAX,
)


class Ledger(ABC):
    """`merchants` maps ids to currencies, `terminals` numbers to merchants; `devices` are (wallet number, slot)."""

    merchants: dict[int, str]
    terminals: dict[int, int]
    wallets: list[int]
    devices: list[tuple[int, int]]
    # Raised by `apply` when another server has committed first.
    conflict: type[Exception] | tuple[type[Exception], ...]

    def decide(self, operations: Sequence[Operation], now_ms: int, *, outrun: bool = False) -> list[Outcome]:
        """Decide and store one batch. With `outrun`, another server commits to the same wallets once in between."""
        outcomes, changes = self.run(operations, now_ms)
        if outrun and changes.wallets:
            self.move_wallet_versions()
            with pytest.raises(self.conflict):
                self.apply(changes, now_ms)
            outcomes, changes = self.run(operations, now_ms)
        if changes:
            self.apply(changes, now_ms)
        return outcomes

    def run(self, operations: Sequence[Operation], now_ms: int) -> tuple[list[Outcome], Changeset]:
        """Decide on the stored rows without storing anything."""
        return run(operations, self.load(operations), now_ms)

    @abstractmethod
    def begin(self) -> None:
        """Delete all payments and reset wallets, devices, terminals and merchants."""

    @abstractmethod
    def load(self, operations: Sequence[Operation]) -> Snapshot:
        """Load the rows that decisions about `operations` depend on."""

    @abstractmethod
    def apply(self, changes: Changeset, now_ms: int) -> None:
        """Store a whole batch, or raise `conflict`."""

    @abstractmethod
    def move_wallet_versions(self) -> None:
        """Change all wallets' versions, as another server's commit does."""

    @abstractmethod
    def overdue(self, now_ms: int) -> set[Key]:
        """Return the payments that the expiry sweep would hand to the engine."""

    @abstractmethod
    def wallet_rows(self, now_ms: int) -> dict[int, tuple[int, ...]]:
        """Return what `Model.wallet_rows` returns; counters of another day are 0."""

    @abstractmethod
    def payment_rows(self) -> dict[Key, tuple[object, ...]]:
        """Return what `Model.payment_rows` returns."""

    @abstractmethod
    def merchant_rows(self) -> dict[int, int]:
        """Return what `Model.merchant_rows` returns."""

    @abstractmethod
    def spent_codes(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Return what `Model.spent_codes` returns."""

    @abstractmethod
    def audit(self) -> None:
        """Fail unless payments, transfers and balances agree."""

    # --- other changes

    @abstractmethod
    def set_status(self, kind: str, number: int, status: str) -> None:
        """Set the status of a `wallet`, a `terminal` or a `merchant`."""

    @abstractmethod
    def set_pin(self, wallet: int, generation: int) -> None:
        """Set a new PIN; `generation` is that of the previous one."""

    @abstractmethod
    def reset_pin(self, wallet: int) -> None:
        """Remove a wallet's PIN."""

    @abstractmethod
    def count_wrong_pin(self, wallet: int, generation: int, now_ms: int) -> None:
        """Count a wrong PIN that was not for a payment."""

    @abstractmethod
    def activate(self, wallet: int, slot: int) -> int:
        """Give a device a new key; return its generation."""

    @abstractmethod
    def top_up(self, wallet: int, amount_minor: int, currency: str, now_ms: int) -> int:
        """Credit a wallet without limits; return its balance."""


def run(operations: Sequence[Operation], snapshot: Snapshot, now_ms: int) -> tuple[list[Outcome], Changeset]:
    """Decide with these rules, with midnight in UTC as the start of the day."""
    return decide(operations, snapshot, KEYRING, now_ms, RULES, day_start_ms=now_ms // limits.DAY * limits.DAY)
