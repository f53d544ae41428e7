"""The rows that a batch reads (`Snapshot`) and writes (`Changeset`), and the records in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from msgspec import Struct

from .payment import MerchantKey, Payment, Refund, Status


class TerminalStatus(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"


class MerchantStatus(StrEnum):
    ACTIVE = "active"
    INACTIVE = "inactive"


class WalletStatus(StrEnum):
    """Status of a wallet. Only an active wallet can pay or be topped up."""

    ACTIVE = "active"
    FROZEN = "frozen"
    CLOSED = "closed"


class DeviceStatus(StrEnum):
    ACTIVE = "active"
    REVOKED = "revoked"


class OwnLimits(Struct, frozen=True, gc=False):
    """Limits of one wallet, named as in rules.Limits, in the wallet's currency; None: the server's limit applies."""

    payment_minor_max: int | None = None
    day_minor_max: int | None = None
    pin_free_minor_max: int | None = None
    pin_free_day_count_max: int | None = None
    pin_free_day_minor_max: int | None = None
    top_up_minor_max: int | None = None
    balance_minor_max: int | None = None


class Wallet(Struct, frozen=True, gc=False):
    """A wallet. Amounts are minor units of `currency`; times are Unix milliseconds.

    - `pin_generation`: number of PIN changes.
    - `day_…`: approved payments since `day_start_ms` (total, and the part without a PIN).
    - `limits`: None for a wallet without limits of its own, which is the usual case.
    """

    number: int
    account_id: int
    currency: str
    balance_minor: int
    status: WalletStatus
    version: int
    pin_set: bool = False
    pin_generation: int = 0
    pin_failures: int = 0
    pin_locked_until_ms: int = 0
    day_start_ms: int = 0
    day_spent_minor: int = 0
    day_pin_free_minor: int = 0
    day_pin_free_count: int = 0
    limits: OwnLimits | None = None


class WalletDevice(Struct, frozen=True, gc=False):
    wallet_number: int
    slot: int
    kid: str
    generation: int
    status: DeviceStatus
    spent_mark: int


class HouseAccount(StrEnum):
    """The operator's own accounts, one of each kind per currency."""

    CASH_IN = "cash_in"
    PAYOUT = "payout"
    FEES = "fees"
    SETTLEMENT = "settlement"


class Acceptor(Struct, frozen=True, gc=False):
    """Facts about a terminal or a back office, and its merchant, that a decision needs.

    A sale's fee is `fee_bps` basis points plus `fee_fixed_minor`. `shift_id` is the terminal's open shift.
    """

    terminal_status: TerminalStatus
    merchant_status: MerchantStatus
    merchant_account_id: int
    merchant_name: str
    store_name: str
    fee_bps: int = 0
    fee_fixed_minor: int = 0
    shift_id: UUID | None = None


class OpenPayment(Struct, frozen=True, gc=False):
    """The payment that occupies a merchant's reference."""

    payment_id: UUID
    status: Status


@dataclass(slots=True)
class Snapshot:
    """The rows that a batch needs, loaded before the decision. `decide` updates them as it goes.

    - `terminals`: acceptors by terminal number.
    - `back_offices`: acceptors by merchant_id.
    - `devices`: wallet devices by (wallet_number, slot).
    - `open_payments`: the payment that occupies a reference, by (merchant_id, reference).
    - `house`: account ids by (house account, currency).
    - `payments`, `refunds`: by (merchant_id, id).
    - `archived`, `archived_refunds`: keys of archived payments and refunds. They stay in use and cannot change; an
      archived payment still occupies its reference.
    """

    terminals: dict[int, Acceptor] = field(default_factory=dict)
    wallets: dict[int, Wallet] = field(default_factory=dict)
    devices: dict[tuple[int, int], WalletDevice] = field(default_factory=dict)
    payments: dict[MerchantKey, Payment] = field(default_factory=dict)
    open_payments: dict[tuple[int, str], OpenPayment] = field(default_factory=dict)
    refunds: dict[MerchantKey, Refund] = field(default_factory=dict)
    archived: set[MerchantKey] = field(default_factory=set)
    archived_refunds: set[MerchantKey] = field(default_factory=set)
    back_offices: dict[int, Acceptor] = field(default_factory=dict)
    house: Mapping[tuple[HouseAccount, str], int] = field(default_factory=dict)


class TransferKind(StrEnum):
    """Reason for a transfer. Transfers of the kind SETTLEMENT are posted by the settlement, not by a decision."""

    PAYMENT = "payment"
    TOP_UP = "top_up"
    WITHDRAWAL = "withdrawal"
    CANCEL = "cancel"
    REFUND = "refund"
    FEE = "fee"
    FEE_RETURN = "fee_return"
    SETTLEMENT = "settlement"


class Transfer(Struct, frozen=True, gc=False):
    """A transfer of `amount_minor` from the debit account to the credit account. Transfers are append-only.

    `source_id` is the id of the payment, or of the refund for a refund and its fee return. It is unique per merchant,
    so a transfer names the merchant too. `wallet_number` is the customer's wallet, also for a fee.
    """

    kind: TransferKind
    source_id: UUID
    debit_account_id: int
    credit_account_id: int
    amount_minor: int
    currency: str
    wallet_number: int
    merchant_id: int


@dataclass(slots=True)
class Changeset:
    """All changes of a batch, written in one commit: new versions of rows, refunds and transfers.

    - `payments`: by (merchant_id, payment_id).
    - `wallet_versions`, `payment_versions`: version of each changed row when it was loaded (0 for a new payment). The
      write takes effect only if all of them are unchanged.
    - `shifts`: open shifts that the batch adds to, by terminal number. They must still be open at the write.
    """

    payments: dict[MerchantKey, Payment] = field(default_factory=dict)
    payment_versions: dict[MerchantKey, int] = field(default_factory=dict)
    refunds: list[Refund] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    wallets: dict[int, Wallet] = field(default_factory=dict)
    wallet_versions: dict[int, int] = field(default_factory=dict)
    devices: dict[tuple[int, int], WalletDevice] = field(default_factory=dict)
    shifts: dict[int, UUID] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.payments)
