"""The rows that decisions read and write: who takes part, and all that one batch changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from msgspec import Struct

from .payment import Payment, Refund, Status


class TerminalStatus(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"


class MerchantStatus(StrEnum):
    ACTIVE = "active"
    INACTIVE = "inactive"


class WalletStatus(StrEnum):
    """Whether a wallet can pay: only an active one can. A frozen one may be thawed."""

    ACTIVE = "active"
    FROZEN = "frozen"
    CLOSED = "closed"


class DeviceStatus(StrEnum):
    ACTIVE = "active"
    REVOKED = "revoked"


class OwnLimits(Struct, frozen=True, gc=False):
    """Limits of one wallet, by the names of rules.Limits and in its currency; None where the server's own holds."""

    payment_minor_max: int | None = None
    day_minor_max: int | None = None
    pin_free_minor_max: int | None = None
    pin_free_day_count_max: int | None = None
    pin_free_day_minor_max: int | None = None
    top_up_minor_max: int | None = None
    balance_minor_max: int | None = None


class Wallet(Struct, frozen=True, gc=False):
    """A wallet. `pin_generation` counts the changes of its PIN. Times are Unix milliseconds.

    `limits` is None for a wallet that has none of its own, as nearly all. `day_…` counts what was approved since
    `day_start_ms`: in all, and of that without a PIN.
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
    """The operator's own accounts, one of each per currency."""

    CASH_IN = "cash_in"
    PAYOUT = "payout"
    FEES = "fees"
    SETTLEMENT = "settlement"


class Acceptor(Struct, frozen=True, gc=False):
    """What a decision needs to know of a terminal and of its merchant, or of a merchant's back office.

    A fee is `fee_bps` hundredths of a percent of a sale, and `fee_fixed_minor`. `shift_id` is the shift that is open.
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
    """The payment that occupies a reference."""

    payment_id: UUID
    status: Status


@dataclass(slots=True)
class Snapshot:
    """The rows a batch needs, loaded before the decision. `decide` keeps it up to date as it goes.

    `terminals` maps a terminal's number to its acceptor, `back_offices` a merchant_id to that of its back office.
    `open_payments` maps (merchant_id, reference) to the payment that occupies the reference. `house` maps (account,
    currency) to the account's id. `archived` and `archived_refunds` hold ids whose rows are in the archive: they stay
    used and cannot change. An archived payment still occupies its reference.
    """

    terminals: dict[int, Acceptor] = field(default_factory=dict)
    wallets: dict[int, Wallet] = field(default_factory=dict)
    devices: dict[tuple[int, int], WalletDevice] = field(default_factory=dict)
    payments: dict[UUID, Payment] = field(default_factory=dict)
    open_payments: dict[tuple[int, str], OpenPayment] = field(default_factory=dict)
    refunds: dict[UUID, Refund] = field(default_factory=dict)
    archived: set[UUID] = field(default_factory=set)
    archived_refunds: set[UUID] = field(default_factory=set)
    back_offices: dict[int, Acceptor] = field(default_factory=dict)
    house: Mapping[tuple[HouseAccount, str], int] = field(default_factory=dict)


class TransferKind(StrEnum):
    """Why money moved. A settlement pays merchants out and is posted by the settlement itself."""

    PAYMENT = "payment"
    TOP_UP = "top_up"
    WITHDRAWAL = "withdrawal"
    CANCEL = "cancel"
    REFUND = "refund"
    FEE = "fee"
    FEE_RETURN = "fee_return"
    SETTLEMENT = "settlement"


class Transfer(Struct, frozen=True, gc=False):
    """One posting: `amount_minor` moves from the debit account to the credit account. Append-only.

    `source_id` is what caused it: a payment's id, or a refund's (refund, its fee_return). `wallet_number` is the
    customer's, also of a fee.
    """

    kind: TransferKind
    source_id: UUID
    debit_account_id: int
    credit_account_id: int
    amount_minor: int
    currency: str
    wallet_number: int


@dataclass(slots=True)
class Changeset:
    """Everything a batch writes, in one commit: rows as they now are, and transfers.

    `wallet_versions` and `payment_versions` hold the version that each changed row had when it was loaded: the guard
    of the write. A payment that is new has version 0 there. `shifts` holds, by terminal number, the open shifts that
    something was added to: they must still be open when it is written.
    """

    payments: dict[UUID, Payment] = field(default_factory=dict)
    payment_versions: dict[UUID, int] = field(default_factory=dict)
    refunds: list[Refund] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    wallets: dict[int, Wallet] = field(default_factory=dict)
    wallet_versions: dict[int, int] = field(default_factory=dict)
    devices: dict[tuple[int, int], WalletDevice] = field(default_factory=dict)
    shifts: dict[int, UUID] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.payments)
