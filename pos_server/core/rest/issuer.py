"""Endpoints of the role `issuer`: wallets with their limits and devices, cash, and wallet statements."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from ..credentials.api_keys import Role
from ..payments.declines import DeclineCode
from ..payments.payment import Purpose, Status
from ..payments.snapshot import WalletStatus
from .endpoints import Endpoint, Kind
from .fields import (
    Body,
    Currency,
    Id,
    Minor,
    Name,
    Page,
    Paging,
    Parameters,
    PositiveMinor,
    Reference,
    Resource,
    SerialId,
    Slot,
    SumMinor,
    TerminalNumber,
    Time,
    WalletNumber,
)

_WalletStatus = Annotated[
    WalletStatus,
    Field(strict=False, description="Status of the wallet; a frozen or closed wallet cannot pay or be topped up."),
]
_Limit = Annotated[Minor | None, Field(description="Limit in minor units; null: the server's limit applies.")]
_CountLimit = Annotated[Minor | None, Field(description="Number of payments; null: the server's limit applies.")]


class WalletCreate(Body):
    """A new, empty wallet. The currency cannot be changed later."""

    name: Name
    currency: Currency


class WalletChange(Body):
    """The wallet's new status. Its devices are notified."""

    status: _WalletStatus


class Wallet(Resource):
    """A wallet and its balance."""

    wallet_number: WalletNumber
    name: str
    currency: Currency
    balance_minor: Minor
    status: _WalletStatus
    pin_set: Annotated[
        bool, Field(description="True if the wallet has a PIN; otherwise the customer is asked to set one.")
    ]
    pin_locked_until: Annotated[
        Time | None, Field(description="End of the PIN lock after too many wrong PINs; null: not locked.")
    ]


class WalletLimitsReplace(Body):
    """All limits of one wallet, in minor units of its currency. The server's limit applies where a field is null."""

    payment_minor_max: _Limit = None
    day_minor_max: _Limit = None
    pin_free_minor_max: _Limit = None
    pin_free_day_count_max: _CountLimit = None
    pin_free_day_minor_max: _Limit = None
    top_up_minor_max: _Limit = None
    balance_minor_max: _Limit = None


class WalletLimits(Resource):
    """A wallet's own limits. A change applies from the next payment."""

    wallet_number: WalletNumber
    payment_minor_max: _Limit
    day_minor_max: _Limit
    pin_free_minor_max: _Limit
    pin_free_day_count_max: _CountLimit
    pin_free_day_minor_max: _Limit
    top_up_minor_max: _Limit
    balance_minor_max: _Limit


class WalletPath(Parameters):
    """A wallet in the path."""

    wallet_number: WalletNumber


class WalletDeviceCreate(Body):
    """A device to activate."""

    slot: Annotated[
        Slot | None,
        Field(description="Slot of the device, whose existing device gets a new key; null: the first free slot."),
    ] = None


class WalletDevice(Resource):
    """A device of the wallet."""

    slot: Slot
    status: Annotated[
        Literal["unused", "active", "revoked"], Field(description="Status of the device; unused: not activated yet.")
    ]


class WalletDeviceActivation(Resource):
    """One-time activation code. Returned by this request and its repeats; not stored."""

    wallet_number: WalletNumber
    slot: Slot
    activation_code: Annotated[
        str | None,
        Field(repr=False, description="The code; null in a repeat after its master key was retired."),
    ]
    expires_at: Annotated[Time, Field(description="Expiry of the code, RFC 3339 in UTC.")]


class WalletDevicePath(Parameters):
    """A wallet and one of its devices in the path."""

    wallet_number: WalletNumber
    slot: Slot


class CashCreate(Body):
    """Cash that a merchant receives or pays out."""

    wallet_number: WalletNumber
    merchant_id: Annotated[SerialId, Field(description="Merchant that receives the cash or pays it out.")]
    amount_minor: PositiveMinor
    reference: Annotated[
        Reference | None, Field(description="Reference of the merchant; default: the payment's id.")
    ] = None


class CashPayment(Resource):
    """A top-up or withdrawal, through the API or at a terminal."""

    payment_id: Id
    purpose: Annotated[Literal[Purpose.TOP_UP, Purpose.WITHDRAWAL], Field(description="Purpose of the payment.")]
    status: Annotated[Status, Field(description="Current status.")]
    decline_code: Annotated[DeclineCode | None, Field(description="Reason for the decline; null unless declined.")]
    text: Annotated[str, Field(description="Instruction in English for the person who handles the cash.")]
    wallet_number: WalletNumber | None
    merchant_id: SerialId
    terminal_number: Annotated[
        TerminalNumber | None, Field(description="Number of the terminal; null for cash through the API.")
    ]
    reference: str | None
    amount_minor: PositiveMinor
    currency: Currency
    version: Annotated[int, Field(ge=1, description="Version of the payment, incremented by each change.")]
    decided_at: Annotated[Time, Field(description="Time of the last change, RFC 3339 in UTC.")]


class CashPath(Parameters):
    """A top-up or withdrawal in the path."""

    payment_id: UUID


class CashQuery(Parameters):
    """The merchant of a top-up or withdrawal."""

    merchant_id: Annotated[
        SerialId | None,
        Field(
            description="Merchant of the payment, since ids are unique per merchant. Required if two use the same id."
        ),
    ] = None


class WalletTransfer(Resource):
    """A movement of money into or out of the wallet. All archived transfers appear as one, last in the list."""

    transfer_id: Annotated[SerialId | None, Field(description="Id of the transfer; null for archived transfers.")]
    kind: Literal["payment", "top_up", "withdrawal", "cancel", "refund", "archived"]
    amount_minor: Annotated[SumMinor, Field(description="Amount in minor units; negative for money out of the wallet.")]
    balance_minor: Annotated[SumMinor, Field(description="Balance of the wallet after the transfer.")]
    counterpart: Annotated[
        str | None, Field(description="Name of the merchant, or `house` for cash; null for archived transfers.")
    ]
    merchant_id: Annotated[
        SerialId | None, Field(description="Merchant that was paid, or that received or paid out the cash.")
    ]
    payment_id: Id | None
    created_at: Time | None


ISSUER_ENDPOINTS = (
    Endpoint(
        name="createWallet",
        role=Role.ISSUER,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/wallets",
        summary="Create a wallet.",
        body=WalletCreate,
        response=Wallet,
    ),
    Endpoint(
        name="listWallets",
        role=Role.ISSUER,
        kind=Kind.READ,
        method="GET",
        path="/v1/wallets",
        summary="List all wallets, oldest first.",
        query=Paging,
        response=Page[Wallet],
    ),
    Endpoint(
        name="getWallet",
        role=Role.ISSUER,
        kind=Kind.READ,
        method="GET",
        path="/v1/wallets/{wallet_number}",
        summary="Get a wallet and its balance.",
        parameters=WalletPath,
        response=Wallet,
    ),
    Endpoint(
        name="changeWallet",
        role=Role.ISSUER,
        kind=Kind.CHANGE,
        method="PATCH",
        path="/v1/wallets/{wallet_number}",
        summary="Freeze, reactivate or close a wallet, effective from the next payment.",
        parameters=WalletPath,
        body=WalletChange,
        response=Wallet,
    ),
    Endpoint(
        name="resetWalletPin",
        role=Role.ISSUER,
        kind=Kind.CHANGE,
        method="DELETE",
        path="/v1/wallets/{wallet_number}/pin",
        summary="Remove a forgotten or locked PIN, so that the customer can set a new one.",
        parameters=WalletPath,
        response=Wallet,
    ),
    Endpoint(
        name="getWalletLimits",
        role=Role.ISSUER,
        kind=Kind.READ,
        method="GET",
        path="/v1/wallets/{wallet_number}/limits",
        summary="Get a wallet's own limits.",
        parameters=WalletPath,
        response=WalletLimits,
        versioned=True,
    ),
    Endpoint(
        name="replaceWalletLimits",
        role=Role.ISSUER,
        kind=Kind.REPLACE,
        method="PUT",
        path="/v1/wallets/{wallet_number}/limits",
        summary="Replace a wallet's own limits.",
        parameters=WalletPath,
        body=WalletLimitsReplace,
        response=WalletLimits,
        versioned=True,
    ),
    Endpoint(
        name="listWalletDevices",
        role=Role.ISSUER,
        kind=Kind.READ,
        method="GET",
        path="/v1/wallets/{wallet_number}/devices",
        summary="List a wallet's devices, by slot.",
        parameters=WalletPath,
        query=Paging,
        response=Page[WalletDevice],
    ),
    Endpoint(
        name="createWalletDevice",
        role=Role.ISSUER,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/wallets/{wallet_number}/devices",
        summary="Create a one-time activation code for a device of the wallet.",
        parameters=WalletPath,
        body=WalletDeviceCreate,
        response=WalletDeviceActivation,
    ),
    Endpoint(
        name="revokeWalletDevice",
        role=Role.ISSUER,
        kind=Kind.CHANGE,
        method="DELETE",
        path="/v1/wallets/{wallet_number}/devices/{slot}",
        summary="Revoke a device's key and open activation codes, and disconnect the device.",
        parameters=WalletDevicePath,
        response=WalletDevice,
    ),
    Endpoint(
        name="listWalletTransfers",
        role=Role.ISSUER,
        kind=Kind.READ,
        method="GET",
        path="/v1/wallets/{wallet_number}/transfers",
        summary="List a wallet's transfers, newest first.",
        parameters=WalletPath,
        query=Paging,
        response=Page[WalletTransfer],
    ),
    Endpoint(
        name="createTopUp",
        role=Role.ISSUER,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/top-ups",
        summary="Top up a wallet with cash that a merchant received.",
        body=CashCreate,
        response=CashPayment,
        archives=True,
    ),
    Endpoint(
        name="getTopUp",
        role=Role.ISSUER,
        kind=Kind.READ,
        method="GET",
        path="/v1/top-ups/{payment_id}",
        summary="Get a top-up.",
        parameters=CashPath,
        query=CashQuery,
        response=CashPayment,
        conflicts=True,
        archives=True,
    ),
    Endpoint(
        name="cancelTopUp",
        role=Role.ISSUER,
        kind=Kind.CHANGE,
        method="POST",
        path="/v1/top-ups/{payment_id}/cancel",
        summary="Cancel a top-up in full.",
        parameters=CashPath,
        query=CashQuery,
        response=CashPayment,
        conflicts=True,
        archives=True,
    ),
    Endpoint(
        name="createWithdrawal",
        role=Role.ISSUER,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/withdrawals",
        summary="Withdraw money from a wallet for a merchant to pay out in cash.",
        body=CashCreate,
        response=CashPayment,
        archives=True,
    ),
    Endpoint(
        name="getWithdrawal",
        role=Role.ISSUER,
        kind=Kind.READ,
        method="GET",
        path="/v1/withdrawals/{payment_id}",
        summary="Get a withdrawal.",
        parameters=CashPath,
        query=CashQuery,
        response=CashPayment,
        conflicts=True,
        archives=True,
    ),
    Endpoint(
        name="cancelWithdrawal",
        role=Role.ISSUER,
        kind=Kind.CHANGE,
        method="POST",
        path="/v1/withdrawals/{payment_id}/cancel",
        summary="Cancel a withdrawal in full.",
        parameters=CashPath,
        query=CashQuery,
        response=CashPayment,
        conflicts=True,
        archives=True,
    ),
)
