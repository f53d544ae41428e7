"""Methods of the role `issuer`: wallets, their limits and devices, top-ups and withdrawals."""

from collections.abc import AsyncIterator
from uuid import UUID

from pos_server.core.rest.fields import Page
from pos_server.core.rest.issuer import (
    ISSUER_ENDPOINTS,
    CashCreate,
    CashPath,
    CashPayment,
    CashQuery,
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
    """Endpoints for API keys of the role `issuer`. Limits come with the `etag` that a replacement requires."""

    async def create_wallet(self, body: WalletCreate, *, idempotency_key: str | None = None) -> Wallet:
        """Create a wallet."""
        return await self.call(_OF["createWallet"], Wallet, body=body, idempotency_key=idempotency_key)

    def list_wallets(self) -> AsyncIterator[Wallet]:
        """Iterate over all wallets, oldest first."""
        return self.items(_OF["listWallets"], Page[Wallet])

    async def get_wallet(self, wallet_number: int) -> Wallet:
        """Return a wallet and its balance."""
        return await self.call(_OF["getWallet"], Wallet, WalletPath(wallet_number=wallet_number))

    async def change_wallet(self, wallet_number: int, body: WalletChange) -> Wallet:
        """Freeze, unfreeze or close a wallet. Takes effect with the next payment."""
        return await self.call(_OF["changeWallet"], Wallet, WalletPath(wallet_number=wallet_number), body=body)

    async def reset_wallet_pin(self, wallet_number: int) -> Wallet:
        """Remove a forgotten or locked PIN, so that the customer can set a new one."""
        return await self.call(_OF["resetWalletPin"], Wallet, WalletPath(wallet_number=wallet_number))

    async def get_wallet_limits(self, wallet_number: int) -> Answer[WalletLimits]:
        """Return a wallet's own limits."""
        return await self.ask(_OF["getWalletLimits"], WalletLimits, WalletPath(wallet_number=wallet_number))

    async def replace_wallet_limits(
        self, wallet_number: int, body: WalletLimitsReplace, *, if_match: str
    ) -> Answer[WalletLimits]:
        """Replace a wallet's own limits."""
        path = WalletPath(wallet_number=wallet_number)
        return await self.ask(_OF["replaceWalletLimits"], WalletLimits, path, body=body, if_match=if_match)

    def list_wallet_devices(self, wallet_number: int) -> AsyncIterator[WalletDevice]:
        """Iterate over a wallet's devices, by slot."""
        return self.items(_OF["listWalletDevices"], Page[WalletDevice], WalletPath(wallet_number=wallet_number))

    async def create_wallet_device(
        self, wallet_number: int, body: WalletDeviceCreate, *, idempotency_key: str | None = None
    ) -> WalletDeviceActivation:
        """Create a one-time activation code for a device of the wallet."""
        path = WalletPath(wallet_number=wallet_number)
        return await self.call(
            _OF["createWalletDevice"], WalletDeviceActivation, path, body=body, idempotency_key=idempotency_key
        )

    async def revoke_wallet_device(self, wallet_number: int, slot: int) -> WalletDevice:
        """Revoke a device's key and its unused activation codes. The device is disconnected immediately."""
        path = WalletDevicePath(wallet_number=wallet_number, slot=slot)
        return await self.call(_OF["revokeWalletDevice"], WalletDevice, path)

    def list_wallet_transfers(self, wallet_number: int) -> AsyncIterator[WalletTransfer]:
        """Iterate over a wallet's transfers, newest first."""
        return self.items(_OF["listWalletTransfers"], Page[WalletTransfer], WalletPath(wallet_number=wallet_number))

    async def create_top_up(self, body: CashCreate, *, idempotency_key: str | None = None) -> CashPayment:
        """Credit a wallet with cash that a merchant received."""
        return await self.call(_OF["createTopUp"], CashPayment, body=body, idempotency_key=idempotency_key)

    async def get_top_up(self, payment_id: UUID, *, merchant_id: int | None = None) -> CashPayment:
        """Return a top-up. `merchant_id` is required if two merchants use the id."""
        return await self.call(
            _OF["getTopUp"], CashPayment, CashPath(payment_id=payment_id), query=CashQuery(merchant_id=merchant_id)
        )

    async def cancel_top_up(self, payment_id: UUID, *, merchant_id: int | None = None) -> CashPayment:
        """Cancel a top-up in full. `merchant_id` is required if two merchants use the id."""
        return await self.call(
            _OF["cancelTopUp"], CashPayment, CashPath(payment_id=payment_id), query=CashQuery(merchant_id=merchant_id)
        )

    async def create_withdrawal(self, body: CashCreate, *, idempotency_key: str | None = None) -> CashPayment:
        """Debit a wallet with cash that a merchant pays out."""
        return await self.call(_OF["createWithdrawal"], CashPayment, body=body, idempotency_key=idempotency_key)

    async def get_withdrawal(self, payment_id: UUID, *, merchant_id: int | None = None) -> CashPayment:
        """Return a withdrawal. `merchant_id` is required if two merchants use the id."""
        return await self.call(
            _OF["getWithdrawal"], CashPayment, CashPath(payment_id=payment_id), query=CashQuery(merchant_id=merchant_id)
        )

    async def cancel_withdrawal(self, payment_id: UUID, *, merchant_id: int | None = None) -> CashPayment:
        """Cancel a withdrawal in full. `merchant_id` is required if two merchants use the id."""
        return await self.call(
            _OF["cancelWithdrawal"],
            CashPayment,
            CashPath(payment_id=payment_id),
            query=CashQuery(merchant_id=merchant_id),
        )
