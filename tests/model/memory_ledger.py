"""A ledger in memory: the rows of a database in dicts, with the database's guards and constraints."""

from collections import Counter
from collections.abc import Sequence
from itertools import count, product
from uuid import UUID

from msgspec.structs import replace

from pos_server.core.payments.operations import CreateRefund, Operation, Outcome
from pos_server.core.payments.payment import OCCUPYING, Payment, Purpose, Refund, Status
from pos_server.core.payments.snapshot import (
    Acceptor,
    Changeset,
    DeviceStatus,
    HouseAccount,
    MerchantStatus,
    OpenPayment,
    Snapshot,
    TerminalStatus,
    Transfer,
    TransferKind,
    Wallet,
    WalletDevice,
    WalletStatus,
)
from pos_server.ledger.batch_rows import OperationKey, operation_key
from tests.model import limits
from tests.model.ledger import FEES, MERCHANTS, REVOKED, RULES, WALLETS, Ledger, run
from tests.model.records import Key

FIRST_WALLET, MERCHANT_ACCOUNT, WALLET_ACCOUNT = 1_000_000_001, 500, 900
HOUSE = dict(zip(product(HouseAccount, ("EUR", "JPY")), count(1), strict=False))
KINDS = {
    Purpose.SALE: TransferKind.PAYMENT,
    Purpose.TOP_UP: TransferKind.TOP_UP,
    Purpose.WITHDRAWAL: TransferKind.WITHDRAWAL,
}


class Conflict(Exception):
    """Rows have changed since they were loaded; nothing was stored."""


class MemoryLedger(Ledger):
    """Decides each batch twice: on the rows that a server would load, and on all rows. Both must agree."""

    conflict = Conflict

    def __init__(self) -> None:
        self.merchants = {number: currency for number, (currency, _) in enumerate(MERCHANTS, 1)}
        self.terminals = {
            10 * merchant + place: merchant
            for merchant, (_, terminals) in enumerate(MERCHANTS, 1)
            for place in range(terminals)
        }
        self.wallets = [FIRST_WALLET + place for place in range(len(WALLETS))]
        self.devices = [
            (number, slot)
            for number, (_, _, devices) in zip(self.wallets, WALLETS, strict=True)
            for slot in range(devices)
        ]
        self.begin()

    def begin(self) -> None:
        revoked = (self.wallets[REVOKED[0]], REVOKED[1])
        self._acceptors = {number: self._acceptor(merchant, "Main hall") for number, merchant in self.terminals.items()}
        self._back_offices = {merchant: self._acceptor(merchant, "") for merchant in self.merchants}
        self._wallets = {
            number: Wallet(number, WALLET_ACCOUNT + place, currency, balance, WalletStatus.ACTIVE, 1)
            for place, (number, (currency, balance, _)) in enumerate(zip(self.wallets, WALLETS, strict=True))
        }
        self._devices = {
            device: WalletDevice(
                *device, "k1", 1, DeviceStatus.REVOKED if device == revoked else DeviceStatus.ACTIVE, 0
            )
            for device in self.devices
        }
        self._payments: dict[Key, Payment] = {}
        self._refunds: dict[Key, Refund] = {}
        self._transfers: list[Transfer] = []
        # Credits to wallets without a transfer.
        self._credited = {number: wallet.balance_minor for number, wallet in self._wallets.items()}

    @staticmethod
    def _acceptor(merchant: int, store: str) -> Acceptor:
        fees = FEES[merchant - 1]
        account = MERCHANT_ACCOUNT + merchant
        return Acceptor(TerminalStatus.ACTIVE, MerchantStatus.ACTIVE, account, f"Merchant {merchant}", store, *fees)

    # --- a batch

    def run(self, operations: Sequence[Operation], now_ms: int) -> tuple[list[Outcome], Changeset]:
        result = super().run(operations, now_ms)
        self._decided = self._everything()
        assert run(operations, self._decided, now_ms) == result, "the decision depends on rows that were not loaded"
        return result

    def load(self, operations: Sequence[Operation]) -> Snapshot:
        """Load the rows that the statements `load_snapshot` and `load_refunds` return, and no others."""
        everything, snapshot = self._everything(), Snapshot(house=HOUSE)
        for operation in operations:
            self._load_rows(operation_key(operation), everything, snapshot)
            if isinstance(operation, CreateRefund):
                key = (operation.merchant_id, operation.refund_id)
                if key in self._refunds:
                    snapshot.refunds[key] = self._refunds[key]
        return snapshot

    def _load_rows(self, key: OperationKey, everything: Snapshot, snapshot: Snapshot) -> None:
        payment_id = key.payment_id
        order = (key.merchant_id or 0, key.reference or "")
        if order in everything.open_payments:
            occupant = snapshot.open_payments[order] = everything.open_payments[order]
            payment_id = payment_id or occupant.payment_id
        payment = None if payment_id is None else self._payments.get((key.merchant_id or 0, payment_id))
        terminal, merchant, wallet = key.terminal_number, key.merchant_id, key.wallet_number
        if payment is not None:
            snapshot.payments[payment.key] = payment
            wallet = payment.wallet_number or wallet
            terminal = terminal or payment.terminal_number
        if terminal is not None:
            merchant = self.terminals[terminal]
            snapshot.terminals[terminal] = self._acceptors[terminal]
        if payment is not None and payment.terminal_number is not None:
            snapshot.terminals[payment.terminal_number] = self._acceptors[payment.terminal_number]
        if merchant is not None and (key.terminal_number is None or (payment and payment.terminal_number is None)):
            snapshot.back_offices[merchant] = self._back_offices[merchant]
        if wallet in self._wallets:
            snapshot.wallets[wallet] = self._wallets[wallet]
        device = (key.wallet_number or 0, key.slot or 0)
        if device in self._devices:
            snapshot.devices[device] = self._devices[device]

    def _everything(self) -> Snapshot:
        return Snapshot(
            terminals=dict(self._acceptors),
            wallets=dict(self._wallets),
            devices=dict(self._devices),
            payments=dict(self._payments),
            open_payments={
                (payment.merchant_id, payment.reference): OpenPayment(payment.payment_id, payment.status)
                for payment in self._payments.values()
                if payment.reference is not None and payment.status in OCCUPYING
            },
            refunds=dict(self._refunds),
            back_offices=dict(self._back_offices),
            house=HOUSE,
        )

    def apply(self, changes: Changeset, now_ms: int) -> None:
        """Store a batch under the guards and constraints of the database."""
        assert changes.wallets.keys() == changes.wallet_versions.keys()
        assert changes.payments.keys() == changes.payment_versions.keys()
        if any(self._wallets[number].version != seen for number, seen in changes.wallet_versions.items()):
            raise Conflict
        for number, wallet in changes.wallets.items():
            assert wallet.version > changes.wallet_versions[number]
            assert min(wallet.balance_minor, wallet.day_spent_minor) >= 0
        for device, row in changes.devices.items():
            assert row.spent_mark >= self._devices[device].spent_mark
            assert device[0] in changes.wallets, "the wallet's version guards a spent code"
        for key, payment in changes.payments.items():
            assert key == payment.key
            stored = self._payments.get(key)
            assert changes.payment_versions[key] == (stored.version if stored else 0) < payment.version
        assert not changes.shifts
        refunds = {refund.key: refund for refund in changes.refunds}
        assert len(refunds) == len(changes.refunds)
        assert not refunds.keys() & self._refunds.keys()
        self._wallets |= changes.wallets
        self._devices |= changes.devices
        self._payments |= changes.payments
        self._refunds |= refunds
        self._transfers += changes.transfers
        assert self._everything() == self._decided, "the stored rows differ from the decided ones"

    def move_wallet_versions(self) -> None:
        self._wallets = {
            number: replace(wallet, version=wallet.version + 1) for number, wallet in self._wallets.items()
        }

    # --- rows

    def overdue(self, now_ms: int) -> set[Key]:
        return {
            payment.key
            for payment in self._payments.values()
            if payment.status is Status.PENDING and (payment.expires_at_ms or 0) <= now_ms
        }

    def wallet_rows(self, now_ms: int) -> dict[int, tuple[int, ...]]:
        rows: dict[int, tuple[int, ...]] = {}
        for wallet in self._wallets.values():
            counters = (wallet.day_spent_minor, wallet.day_pin_free_minor, wallet.day_pin_free_count)
            is_today = wallet.day_start_ms >= now_ms // limits.DAY * limits.DAY
            rows[wallet.number] = (
                *(wallet.balance_minor, wallet.pin_failures, wallet.pin_locked_until_ms),
                *(counters if is_today else (0, 0, 0)),
            )
        return rows

    def payment_rows(self) -> dict[Key, tuple[object, ...]]:
        return {
            p.key: (p.status, p.decline_code, p.version, p.pin_failures, p.refunded_minor, p.refunds)
            for p in self._payments.values()
        }

    def merchant_rows(self) -> dict[int, int]:
        return {merchant: self._moved_to(office.merchant_account_id) for merchant, office in self._back_offices.items()}

    def spent_codes(self) -> dict[tuple[int, int], tuple[int, int]]:
        return {device: divmod(row.spent_mark, 10) for device, row in self._devices.items()}

    def _moved_to(self, account: int) -> int:
        return sum(
            transfer.amount_minor * ((transfer.credit_account_id == account) - (transfer.debit_account_id == account))
            for transfer in self._transfers
        )

    def audit(self) -> None:
        """Check that every payment, cancel and refund has one transfer between the right accounts, except for fees."""
        for wallet in self._wallets.values():
            assert wallet.balance_minor == self._credited[wallet.number] + self._moved_to(wallet.account_id)
        keys = [(transfer.kind, transfer.merchant_id, transfer.source_id) for transfer in self._transfers]
        assert len(set(keys)) == len(keys)
        expected = Counter[Transfer]()
        for payment in self._payments.values():
            if payment.approved_at_ms is not None:
                expected[
                    self._expected_transfer(KINDS[payment.purpose], payment, payment.payment_id, payment.amount_minor)
                ] += 1
                if payment.status is Status.CANCELED:
                    expected[
                        self._expected_transfer(TransferKind.CANCEL, payment, payment.payment_id, payment.amount_minor)
                    ] += 1
        for refund in self._refunds.values():
            payment = self._payments[refund.merchant_id, refund.payment_id]
            expected[self._expected_transfer(TransferKind.REFUND, payment, refund.refund_id, refund.amount_minor)] += 1
        fees = (TransferKind.FEE, TransferKind.FEE_RETURN)
        assert expected == Counter(transfer for transfer in self._transfers if transfer.kind not in fees)

    def _expected_transfer(self, kind: TransferKind, payment: Payment, source_id: UUID, amount_minor: int) -> Transfer:
        wallet = self._wallets[payment.wallet_number or 0]
        merchant = self._back_offices[payment.merchant_id].merchant_account_id
        debit, credit = {
            Purpose.SALE: (wallet.account_id, merchant),
            Purpose.TOP_UP: (HOUSE[HouseAccount.CASH_IN, payment.currency], wallet.account_id),
            Purpose.WITHDRAWAL: (wallet.account_id, HOUSE[HouseAccount.PAYOUT, payment.currency]),
        }[payment.purpose]
        if kind in (TransferKind.CANCEL, TransferKind.REFUND):
            debit, credit = credit, debit
        return Transfer(
            kind, source_id, debit, credit, amount_minor, wallet.currency, wallet.number, payment.merchant_id
        )

    # --- other changes

    def set_status(self, kind: str, number: int, status: str) -> None:
        if kind == "wallet":
            self._change(number, status=WalletStatus(status))
        elif kind == "terminal":
            self._acceptors[number] = replace(self._acceptors[number], terminal_status=TerminalStatus(status))
        else:
            self._back_offices[number] = replace(self._back_offices[number], merchant_status=MerchantStatus(status))
            for terminal, merchant in self.terminals.items():
                if merchant == number:
                    self._acceptors[terminal] = replace(
                        self._acceptors[terminal], merchant_status=MerchantStatus(status)
                    )

    def set_pin(self, wallet: int, generation: int) -> None:
        assert self._wallets[wallet].pin_generation == generation
        self._change(wallet, pin_set=True, pin_generation=generation + 1, pin_failures=0, pin_locked_until_ms=0)

    def reset_pin(self, wallet: int) -> None:
        generation = self._wallets[wallet].pin_generation + 1
        self._change(wallet, pin_set=False, pin_generation=generation, pin_failures=0, pin_locked_until_ms=0)

    def count_wrong_pin(self, wallet: int, generation: int, now_ms: int) -> None:
        failures = self._wallets[wallet].pin_failures + 1
        if failures < RULES.pin_failures_max:
            self._change(wallet, pin_failures=failures)
        else:
            self._change(wallet, pin_failures=0, pin_locked_until_ms=now_ms + RULES.pin_lock_ms)

    def activate(self, wallet: int, slot: int) -> int:
        generation = self._devices[wallet, slot].generation + 1
        self._devices[wallet, slot] = WalletDevice(wallet, slot, "k1", generation, DeviceStatus.ACTIVE, 0)
        self._change(wallet)
        return generation

    def top_up(self, wallet: int, amount_minor: int, currency: str, now_ms: int) -> int:
        self._credited[wallet] += amount_minor
        self._change(wallet, balance_minor=self._wallets[wallet].balance_minor + amount_minor)
        return self._wallets[wallet].balance_minor

    def _change(self, number: int, **fields: object) -> None:
        wallet = self._wallets[number]
        self._wallets[number] = replace(wallet, version=wallet.version + 1, **fields)
