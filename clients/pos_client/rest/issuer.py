"""The issuer's part of the REST API as methods: wallets, their limits and devices, cash."""

from collections.abc import AsyncIterator
from uuid import UUID

from pos_server.core.rest.fields import Page
from pos_server.core.rest.issuer import (
    ISSUER_ENDPOINTS,
    CashCreate,
    CashPath,
    CashPayment,
    Wallet,
    WalletChange,
    WalletCreate,
    WalletDevice,
    WalletDeviceActivation,
    WalletDeviceCreate,
    WalletDevicePath,
    WalletLimits,
    WalletLimitsReplace,
    WalletPath,
    WalletTransfer,
)

from .calls import Answer, ApiCalls

_OF = {endpoint.name: endpoint for endpoint in ISSUER_ENDPOINTS}


class IssuerCalls(ApiCalls):
    """What a key of the role `issuer` may do. Limits come with the `etag` that replacing them needs."""

    async def create_wallet(self, body: WalletCreate, *, idempotency_key: str | None = None) -> Wallet:
        """Make a wallet."""
        return await self.call(_OF["createWallet"], Wallet, body=body, idempotency_key=idempotency_key)

    def list_wallets(self) -> AsyncIterator[Wallet]:
        """All wallets, oldest first."""
        return self.items(_OF["listWallets"], Page[Wallet])

    async def get_wallet(self, wallet_number: int) -> Wallet:
        """A wallet and what it holds."""
        return await self.call(_OF["getWallet"], Wallet, WalletPath(wallet_number=wallet_number))

    async def change_wallet(self, wallet_number: int, body: WalletChange) -> Wallet:
        """Freeze, thaw or close a wallet, for the next payment already."""
        return await self.call(_OF["changeWallet"], Wallet, WalletPath(wallet_number=wallet_number), body=body)

    async def reset_wallet_pin(self, wallet_number: int) -> Wallet:
        """Take a forgotten or locked PIN away: the customer sets a new one."""
        return await self.call(_OF["resetWalletPin"], Wallet, WalletPath(wallet_number=wallet_number))

    async def get_wallet_limits(self, wallet_number: int) -> Answer[WalletLimits]:
        """The limits that a wallet has of its own."""
        return await self.ask(_OF["getWalletLimits"], WalletLimits, WalletPath(wallet_number=wallet_number))

    async def replace_wallet_limits(
        self, wallet_number: int, body: WalletLimitsReplace, *, if_match: str
    ) -> Answer[WalletLimits]:
        """Give a wallet limits of its own."""
        path = WalletPath(wallet_number=wallet_number)
        return await self.ask(_OF["replaceWalletLimits"], WalletLimits, path, body=body, if_match=if_match)

    def list_wallet_devices(self, wallet_number: int) -> AsyncIterator[WalletDevice]:
        """A wallet's devices, by slot."""
        return self.items(_OF["listWalletDevices"], Page[WalletDevice], WalletPath(wallet_number=wallet_number))

    async def create_wallet_device(
        self, wallet_number: int, body: WalletDeviceCreate, *, idempotency_key: str | None = None
    ) -> WalletDeviceActivation:
        """Make a one-time code with which a device becomes one of the wallet's."""
        path = WalletPath(wallet_number=wallet_number)
        return await self.call(
            _OF["createWalletDevice"], WalletDeviceActivation, path, body=body, idempotency_key=idempotency_key
        )

    async def revoke_wallet_device(self, wallet_number: int, slot: int) -> WalletDevice:
        """End a device's key and its open activation codes; it is disconnected at once."""
        path = WalletDevicePath(wallet_number=wallet_number, slot=slot)
        return await self.call(_OF["revokeWalletDevice"], WalletDevice, path)

    def list_wallet_transfers(self, wallet_number: int) -> AsyncIterator[WalletTransfer]:
        """What moved in a wallet, newest first."""
        return self.items(_OF["listWalletTransfers"], Page[WalletTransfer], WalletPath(wallet_number=wallet_number))

    async def create_top_up(self, body: CashCreate, *, idempotency_key: str | None = None) -> CashPayment:
        """Put cash that a merchant took into a wallet."""
        return await self.call(_OF["createTopUp"], CashPayment, body=body, idempotency_key=idempotency_key)

    async def get_top_up(self, payment_id: UUID) -> CashPayment:
        """A top-up."""
        return await self.call(_OF["getTopUp"], CashPayment, CashPath(payment_id=payment_id))

    async def cancel_top_up(self, payment_id: UUID) -> CashPayment:
        """Take a top-up back whole."""
        return await self.call(_OF["cancelTopUp"], CashPayment, CashPath(payment_id=payment_id))

    async def create_withdrawal(self, body: CashCreate, *, idempotency_key: str | None = None) -> CashPayment:
        """Take out of a wallet what a merchant pays out in cash."""
        return await self.call(_OF["createWithdrawal"], CashPayment, body=body, idempotency_key=idempotency_key)

    async def get_withdrawal(self, payment_id: UUID) -> CashPayment:
        """A withdrawal."""
        return await self.call(_OF["getWithdrawal"], CashPayment, CashPath(payment_id=payment_id))

    async def cancel_withdrawal(self, payment_id: UUID) -> CashPayment:
        """Take a withdrawal back whole."""
        return await self.call(_OF["cancelWithdrawal"], CashPayment, CashPath(payment_id=payment_id))
