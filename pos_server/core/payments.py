"""Payments and the rules that decide them. `decide` is pure: rows and a time go in, decisions come out.

A batch is decided in order, and each decision sees the ones before it: two payments of one wallet in one batch
cannot spend the same money, two scans of one code cannot both pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import sha256
from uuid import UUID

from . import payment_code
from .device_keys import DeviceId, DeviceKind, Keyring
from .payment_code import CodeCheck


class Status(StrEnum):
    APPROVED = "approved"
    DECLINED = "declined"


class DeclineCode(StrEnum):
    """Why a payment was declined, in order of precedence: the first that applies is given."""

    TERMINAL_DISABLED = "terminal_disabled"
    MERCHANT_INACTIVE = "merchant_inactive"
    CODE_MALFORMED = "code_malformed"
    CODE_INVALID = "code_invalid"
    CODE_EXPIRED = "code_expired"
    CODE_USED = "code_used"
    ALREADY_PAID = "already_paid"
    WALLET_FROZEN = "wallet_frozen"
    WALLET_CLOSED = "wallet_closed"
    CURRENCY_MISMATCH = "currency_mismatch"
    INSUFFICIENT_FUNDS = "insufficient_funds"


class TerminalStatus(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"


class MerchantStatus(StrEnum):
    ACTIVE = "active"
    INACTIVE = "inactive"


class WalletStatus(StrEnum):
    ACTIVE = "active"
    FROZEN = "frozen"
    CLOSED = "closed"


class DeviceStatus(StrEnum):
    ACTIVE = "active"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Scan:
    """A till's wish to be paid: one scanned code and one amount. `payment_id` is the idempotency key."""

    payment_id: UUID
    terminal_number: int
    merchant_id: int
    reference: str
    amount_minor: int
    currency: str
    code: str = field(repr=False)

    @property
    def fingerprint(self) -> bytes:
        """16 bytes that are equal for equal bodies: what tells a repeat from another payment with the same id."""
        body = (self.terminal_number, self.merchant_id, self.reference, self.amount_minor, self.currency, self.code)
        return sha256("\x1f".join(map(str, body)).encode()).digest()[:16]


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment as it is stored. Times are Unix milliseconds."""

    payment_id: UUID
    fingerprint: bytes = field(repr=False)
    terminal_number: int
    merchant_id: int
    wallet_number: int | None
    reference: str
    amount_minor: int
    currency: str
    status: Status
    decline_code: DeclineCode | None
    paid_by: UUID | None
    version: int
    changed_at_ms: int


@dataclass(frozen=True, slots=True)
class Wallet:
    number: int
    account_id: int
    currency: str
    balance_minor: int
    status: WalletStatus
    version: int


@dataclass(frozen=True, slots=True)
class WalletDevice:
    wallet_number: int
    slot: int
    kid: str
    generation: int
    status: DeviceStatus
    spent_mark: int


@dataclass(frozen=True, slots=True)
class Till:
    """What a decision needs to know of the terminal that scanned and of its merchant."""

    terminal_status: TerminalStatus
    merchant_status: MerchantStatus
    merchant_account_id: int
    merchant_name: str
    store_name: str


@dataclass(slots=True)
class Book:
    """The rows a batch of scans needs, loaded before the decision. `decide` keeps it up to date as it goes.

    `open_payments` maps (merchant_id, reference) to the payment that paid that reference.
    """

    tills: dict[int, Till] = field(default_factory=dict)
    wallets: dict[int, Wallet] = field(default_factory=dict)
    devices: dict[tuple[int, int], WalletDevice] = field(default_factory=dict)
    payments: dict[UUID, Payment] = field(default_factory=dict)
    open_payments: dict[tuple[int, str], UUID] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Transfer:
    """One posting: `amount_minor` moves from the debit account to the credit account. Append-only."""

    source_id: UUID
    debit_account_id: int
    credit_account_id: int
    amount_minor: int
    currency: str
    wallet_number: int


@dataclass(frozen=True, slots=True)
class Decided:
    """A scan was decided now, or had been before (`replayed`): `payment` is what is stored."""

    scan: Scan
    payment: Payment
    till: Till
    wallet: Wallet | None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class IdReused:
    """The `payment_id` belongs to a payment with another body. Nothing was stored."""

    scan: Scan


Decision = Decided | IdReused


@dataclass(slots=True)
class Changes:
    """Everything a batch writes, in one commit: new payments, transfers, and wallets and devices as they now are.

    `wallet_versions` holds the version each changed wallet had when it was loaded: the guard of the write.
    """

    payments: list[Payment] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    wallets: dict[int, Wallet] = field(default_factory=dict)
    wallet_versions: dict[int, int] = field(default_factory=dict)
    devices: dict[tuple[int, int], WalletDevice] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.payments)


def decide(
    scans: Sequence[Scan], book: Book, keyring: Keyring, now_ms: int, *, code_expired_steps: int
) -> tuple[list[Decision], Changes]:
    """Decide scans in order against `book`, at `now_ms` (Unix milliseconds).

    Returns one decision per scan, in the same order, and all that has to be written for them. Every scan's terminal
    must be in `book.tills`. Raises nothing for anything a customer or a till can do.
    """
    changes = Changes()
    decisions: list[Decision] = []
    for scan in scans:
        stored = book.payments.get(scan.payment_id)
        if stored is None:
            decisions.append(_decide_new(scan, book, changes, keyring, now_ms, code_expired_steps))
        elif stored.fingerprint != scan.fingerprint:
            decisions.append(IdReused(scan))
        else:
            wallet = None if stored.wallet_number is None else book.wallets.get(stored.wallet_number)
            decisions.append(Decided(scan, stored, book.tills[scan.terminal_number], wallet, replayed=True))
    return decisions, changes


def _decide_new(
    scan: Scan, book: Book, changes: Changes, keyring: Keyring, now_ms: int, code_expired_steps: int
) -> Decided:
    till = book.tills[scan.terminal_number]
    decline, wallet, spent = _judge(scan, till, book, keyring, now_ms, code_expired_steps)
    order = (scan.merchant_id, scan.reference)
    payment = Payment(
        payment_id=scan.payment_id,
        fingerprint=scan.fingerprint,
        terminal_number=scan.terminal_number,
        merchant_id=scan.merchant_id,
        wallet_number=wallet.number if wallet else None,
        reference=scan.reference,
        amount_minor=scan.amount_minor,
        currency=scan.currency,
        status=Status.DECLINED if decline else Status.APPROVED,
        decline_code=decline,
        paid_by=book.open_payments.get(order) if decline is DeclineCode.ALREADY_PAID else None,
        version=1,
        changed_at_ms=now_ms,
    )
    changes.payments.append(payment)
    book.payments[payment.payment_id] = payment
    if wallet is not None:
        changes.wallet_versions.setdefault(wallet.number, wallet.version)
        debit_minor = 0 if decline else scan.amount_minor
        wallet = replace(wallet, balance_minor=wallet.balance_minor - debit_minor, version=wallet.version + 1)
        book.wallets[wallet.number] = changes.wallets[wallet.number] = wallet
    if spent is not None:
        key = (spent.wallet_number, spent.slot)
        book.devices[key] = changes.devices[key] = spent
    if wallet is not None and decline is None:
        book.open_payments[order] = payment.payment_id
        changes.transfers.append(
            Transfer(
                source_id=payment.payment_id,
                debit_account_id=wallet.account_id,
                credit_account_id=till.merchant_account_id,
                amount_minor=scan.amount_minor,
                currency=scan.currency,
                wallet_number=wallet.number,
            )
        )
    return Decided(scan, payment, till, wallet)


def _judge(
    scan: Scan, till: Till, book: Book, keyring: Keyring, now_ms: int, code_expired_steps: int
) -> tuple[DeclineCode | None, Wallet | None, WalletDevice | None]:
    """The verdict on a new scan: why it is declined, whose wallet it is, and that device with its code spent.

    The wallet is None until the code has proved that it comes from it, so nobody is told of a stranger's forgery.
    """
    if till.terminal_status is not TerminalStatus.ACTIVE:
        return DeclineCode.TERMINAL_DISABLED, None, None
    if till.merchant_status is not MerchantStatus.ACTIVE:
        return DeclineCode.MERCHANT_INACTIVE, None, None
    code = payment_code.parse(scan.code)
    if code is None:
        return DeclineCode.CODE_MALFORMED, None, None
    wallet = book.wallets.get(code.wallet_number)
    device = book.devices.get((code.wallet_number, code.slot))
    device_key = _key_of(device, keyring)
    if wallet is None or device is None or device_key is None:
        return DeclineCode.CODE_INVALID, None, None
    now_step = payment_code.step_at(now_ms / 1000)
    verdict, step = payment_code.check(code, device_key, now_step, code_expired_steps)
    if verdict is CodeCheck.INVALID:
        return DeclineCode.CODE_INVALID, None, None

    mark = payment_code.spent_mark(step, code.seq)
    spent = replace(device, spent_mark=max(mark, device.spent_mark))
    decline = None
    if verdict is CodeCheck.EXPIRED:
        decline = DeclineCode.CODE_EXPIRED
    elif mark <= device.spent_mark:
        decline = DeclineCode.CODE_USED
    elif (scan.merchant_id, scan.reference) in book.open_payments:
        decline = DeclineCode.ALREADY_PAID
    elif wallet.status is WalletStatus.FROZEN:
        decline = DeclineCode.WALLET_FROZEN
    elif wallet.status is WalletStatus.CLOSED:
        decline = DeclineCode.WALLET_CLOSED
    elif wallet.currency != scan.currency:
        decline = DeclineCode.CURRENCY_MISMATCH
    elif wallet.balance_minor < scan.amount_minor:
        decline = DeclineCode.INSUFFICIENT_FUNDS
    return decline, wallet, spent


def _key_of(device: WalletDevice | None, keyring: Keyring) -> bytes | None:
    if device is None or device.status is not DeviceStatus.ACTIVE:
        return None
    return keyring.device_key(
        device.kid, DeviceId(DeviceKind.WALLET, device.wallet_number, device.slot), device.generation
    )
