"""The issuer's part of the API: wallets, their limits and devices, cash, and what moved in a wallet."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from ..credentials.api_keys import Role
from ..payments.payment import DeclineCode, Purpose, Status
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
    WalletStatus, Field(strict=False, description="a frozen or closed wallet can neither pay nor be topped up")
]
_Limit = Annotated[Minor | None, Field(description="null: the server's own limit holds")]
_CountLimit = Annotated[Minor | None, Field(description="how many; null: the server's own limit holds")]


class WalletCreate(Body):
    """A new wallet, empty. Its currency never changes."""

    name: Name
    currency: Currency


class WalletChange(Body):
    """What is to be another. Its devices hear of a new status."""

    status: _WalletStatus


class Wallet(Resource):
    """A wallet and what it holds."""

    wallet_number: WalletNumber
    name: str
    currency: Currency
    balance_minor: Minor
    status: _WalletStatus
    pin_set: Annotated[bool, Field(description="without a PIN, the customer is asked to set one")]
    pin_locked_until: Annotated[Time | None, Field(description="after too many wrong PINs; null when it is not locked")]


class WalletLimitsReplace(Body):
    """All limits of one wallet, in minor units of its currency. What is null or left out is as the server has it."""

    payment_minor_max: _Limit = None
    day_minor_max: _Limit = None
    pin_free_minor_max: _Limit = None
    pin_free_day_count_max: _CountLimit = None
    pin_free_day_minor_max: _Limit = None
    top_up_minor_max: _Limit = None
    balance_minor_max: _Limit = None


class WalletLimits(Resource):
    """The limits that a wallet has of its own: they hold from its next payment on."""

    wallet_number: WalletNumber
    payment_minor_max: _Limit
    day_minor_max: _Limit
    pin_free_minor_max: _Limit
    pin_free_day_count_max: _CountLimit
    pin_free_day_minor_max: _Limit
    top_up_minor_max: _Limit
    balance_minor_max: _Limit


class WalletPath(Parameters):
    """Which wallet."""

    wallet_number: WalletNumber


class WalletDeviceCreate(Body):
    """A device that is to be activated."""

    slot: Annotated[
        Slot | None,
        Field(description="a device that is there gets a new key; null: the first slot that is free"),
    ] = None


class WalletDevice(Resource):
    """One of the wallet's devices."""

    slot: Slot
    status: Annotated[
        Literal["unused", "active", "revoked"], Field(description="unused: it was never activated, or not yet")
    ]


class WalletDeviceActivation(Resource):
    """What a device is activated with, once. The code is told now and to repeats of this request, and kept nowhere."""

    wallet_number: WalletNumber
    slot: Slot
    activation_code: Annotated[str | None, Field(repr=False, description="null if its master key is gone")]
    expires_at: Time


class WalletDevicePath(Parameters):
    """Which device of which wallet."""

    wallet_number: WalletNumber
    slot: Slot


class CashCreate(Body):
    """Cash that a merchant has taken or pays out."""

    wallet_number: WalletNumber
    merchant_id: Annotated[SerialId, Field(description="who took the cash or pays it out")]
    amount_minor: PositiveMinor
    reference: Annotated[Reference | None, Field(description="the merchant's; else the payment's id is one")] = None


class CashPayment(Resource):
    """A top-up or a withdrawal, through the API or at a till, and what became of it."""

    payment_id: Id
    purpose: Annotated[Literal[Purpose.TOP_UP, Purpose.WITHDRAWAL], Field(description="what the money is for")]
    status: Annotated[Status, Field(description="what became of it")]
    decline_code: Annotated[DeclineCode | None, Field(description="why it was declined")]
    text: Annotated[str, Field(description="for whoever handles the cash, in English")]
    wallet_number: WalletNumber | None
    merchant_id: SerialId
    terminal_number: Annotated[TerminalNumber | None, Field(description="the till; null when it was this API")]
    reference: str | None
    amount_minor: PositiveMinor
    currency: Currency
    version: Annotated[int, Field(ge=1, description="counts its changes")]
    decided_at: Annotated[Time, Field(description="when it changed last")]


class CashPath(Parameters):
    """Which top-up or withdrawal."""

    payment_id: UUID


class WalletTransfer(Resource):
    """Money that went into the wallet or out of it. Those that are archived are one, which is the last in the list."""

    transfer_id: Annotated[SerialId | None, Field(description="null of what is archived")]
    kind: Literal["payment", "top_up", "withdrawal", "cancel", "refund", "archived"]
    amount_minor: Annotated[SumMinor, Field(description="negative when it went out of the wallet")]
    balance_minor: Annotated[SumMinor, Field(description="what the wallet held after it")]
    counterpart: Annotated[
        str | None, Field(description="the merchant's name, or `house` for cash; null of what is archived")
    ]
    merchant_id: Annotated[SerialId | None, Field(description="who was paid, or took or paid out the cash")]
    payment_id: Id | None
    created_at: Time | None


ISSUER_ENDPOINTS = (
    Endpoint(
        name="createWallet",
        role=Role.ISSUER,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/wallets",
        summary="Make a wallet.",
        body=WalletCreate,
        answer=Wallet,
    ),
    Endpoint(
        name="listWallets",
        role=Role.ISSUER,
        kind=Kind.READ,
        method="GET",
        path="/v1/wallets",
        summary="All wallets, oldest first.",
        query=Paging,
        answer=Page[Wallet],
    ),
    Endpoint(
        name="getWallet",
        role=Role.ISSUER,
        kind=Kind.READ,
        method="GET",
        path="/v1/wallets/{wallet_number}",
        summary="A wallet and what it holds.",
        parameters=WalletPath,
        answer=Wallet,
    ),
    Endpoint(
        name="changeWallet",
        role=Role.ISSUER,
        kind=Kind.CHANGE,
        method="PATCH",
        path="/v1/wallets/{wallet_number}",
        summary="Freeze, thaw or close a wallet, for the next payment already.",
        parameters=WalletPath,
        body=WalletChange,
        answer=Wallet,
    ),
    Endpoint(
        name="resetWalletPin",
        role=Role.ISSUER,
        kind=Kind.CHANGE,
        method="DELETE",
        path="/v1/wallets/{wallet_number}/pin",
        summary="Take a forgotten or locked PIN away: the customer sets a new one.",
        parameters=WalletPath,
        answer=Wallet,
    ),
    Endpoint(
        name="getWalletLimits",
        role=Role.ISSUER,
        kind=Kind.READ,
        method="GET",
        path="/v1/wallets/{wallet_number}/limits",
        summary="The limits that a wallet has of its own.",
        parameters=WalletPath,
        answer=WalletLimits,
        versioned=True,
    ),
    Endpoint(
        name="replaceWalletLimits",
        role=Role.ISSUER,
        kind=Kind.REPLACE,
        method="PUT",
        path="/v1/wallets/{wallet_number}/limits",
        summary="Give a wallet limits of its own.",
        parameters=WalletPath,
        body=WalletLimitsReplace,
        answer=WalletLimits,
        versioned=True,
    ),
    Endpoint(
        name="listWalletDevices",
        role=Role.ISSUER,
        kind=Kind.READ,
        method="GET",
        path="/v1/wallets/{wallet_number}/devices",
        summary="A wallet's devices, by slot.",
        parameters=WalletPath,
        query=Paging,
        answer=Page[WalletDevice],
    ),
    Endpoint(
        name="createWalletDevice",
        role=Role.ISSUER,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/wallets/{wallet_number}/devices",
        summary="Make a one-time code with which a device becomes one of the wallet's.",
        parameters=WalletPath,
        body=WalletDeviceCreate,
        answer=WalletDeviceActivation,
    ),
    Endpoint(
        name="revokeWalletDevice",
        role=Role.ISSUER,
        kind=Kind.CHANGE,
        method="DELETE",
        path="/v1/wallets/{wallet_number}/devices/{slot}",
        summary="End a device's key and its open activation codes; it is disconnected at once.",
        parameters=WalletDevicePath,
        answer=WalletDevice,
    ),
    Endpoint(
        name="listWalletTransfers",
        role=Role.ISSUER,
        kind=Kind.READ,
        method="GET",
        path="/v1/wallets/{wallet_number}/transfers",
        summary="What moved in a wallet, newest first.",
        parameters=WalletPath,
        query=Paging,
        answer=Page[WalletTransfer],
    ),
    Endpoint(
        name="createTopUp",
        role=Role.ISSUER,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/top-ups",
        summary="Put cash that a merchant took into a wallet.",
        body=CashCreate,
        answer=CashPayment,
        archives=True,
    ),
    Endpoint(
        name="getTopUp",
        role=Role.ISSUER,
        kind=Kind.READ,
        method="GET",
        path="/v1/top-ups/{payment_id}",
        summary="A top-up.",
        parameters=CashPath,
        answer=CashPayment,
        archives=True,
    ),
    Endpoint(
        name="cancelTopUp",
        role=Role.ISSUER,
        kind=Kind.CHANGE,
        method="POST",
        path="/v1/top-ups/{payment_id}/cancel",
        summary="Take a top-up back whole.",
        parameters=CashPath,
        answer=CashPayment,
        conflicts=True,
        archives=True,
    ),
    Endpoint(
        name="createWithdrawal",
        role=Role.ISSUER,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/withdrawals",
        summary="Take out of a wallet what a merchant pays out in cash.",
        body=CashCreate,
        answer=CashPayment,
        archives=True,
    ),
    Endpoint(
        name="getWithdrawal",
        role=Role.ISSUER,
        kind=Kind.READ,
        method="GET",
        path="/v1/withdrawals/{payment_id}",
        summary="A withdrawal.",
        parameters=CashPath,
        answer=CashPayment,
        archives=True,
    ),
    Endpoint(
        name="cancelWithdrawal",
        role=Role.ISSUER,
        kind=Kind.CHANGE,
        method="POST",
        path="/v1/withdrawals/{payment_id}/cancel",
        summary="Take a withdrawal back whole.",
        parameters=CashPath,
        answer=CashPayment,
        conflicts=True,
        archives=True,
    ),
)
