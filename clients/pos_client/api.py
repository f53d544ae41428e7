"""The REST API as methods: one for each operation of `pos_server.core.rest`, in its models.

    async with ApiClient("http://127.0.0.1:8080", key) as api:
        merchant = await api.create_merchant(MerchantCreate(name="Kiosk", currency="EUR"))
        async for key in api.list_api_keys():
            print(key.name)

Every method raises `ApiError`. What makes something takes an `idempotency_key` of yours, kept before the request, if it
must be made once over restarts of your program too; else it makes one for the retries within the call.
"""

from collections.abc import AsyncIterator
from uuid import UUID

from pos_server.core.rest.admin import (
    ApiKeyCreate,
    ApiKeyMade,
    ApiKeyPath,
    ApiKeyRotate,
    ApiKeyShown,
    Merchant,
    MerchantChange,
    MerchantCreate,
    MerchantPath,
)
from pos_server.core.rest.catalogue import OPERATIONS
from pos_server.core.rest.fields import Page
from pos_server.core.rest.issuer import (
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
from pos_server.core.rest.merchant_books import (
    MerchantBalance,
    Shift,
    ShiftPath,
    ShiftQuery,
    ShiftShown,
    Statement,
    StatementPath,
    StatementQuery,
)
from pos_server.core.rest.merchant_payments import (
    CancelByReference,
    Payment,
    PaymentCreate,
    PaymentPath,
    PaymentQuery,
    Refund,
    RefundCreate,
)
from pos_server.core.rest.merchant_places import (
    Store,
    StoreCreate,
    StorePath,
    Terminal,
    TerminalActivation,
    TerminalChange,
    TerminalCreate,
    TerminalMade,
    TerminalPath,
    TerminalQuery,
)

from .api_calls import Answer, ApiCalls

_OF = {operation.name: operation for operation in OPERATIONS}


class ApiClient(ApiCalls):
    """The operations by the roles of keys that may use them."""

    # admin

    async def create_merchant(self, body: MerchantCreate, *, idempotency_key: str | None = None) -> Merchant:
        """Make a merchant."""
        return await self.call(_OF["createMerchant"], Merchant, body=body, idempotency_key=idempotency_key)

    def list_merchants(self) -> AsyncIterator[Merchant]:
        """All merchants, oldest first."""
        return self.items(_OF["listMerchants"], Page[Merchant])

    async def get_merchant(self, merchant_id: int) -> Merchant:
        """A merchant and its terms."""
        return await self.call(_OF["getMerchant"], Merchant, MerchantPath(merchant_id=merchant_id))

    async def change_merchant(self, merchant_id: int, body: MerchantChange) -> Merchant:
        """Change a merchant's terms, or whether it can be paid."""
        return await self.call(_OF["changeMerchant"], Merchant, MerchantPath(merchant_id=merchant_id), body=body)

    async def create_api_key(self, body: ApiKeyCreate, *, idempotency_key: str | None = None) -> ApiKeyMade:
        """Make an API key."""
        return await self.call(_OF["createApiKey"], ApiKeyMade, body=body, idempotency_key=idempotency_key)

    def list_api_keys(self) -> AsyncIterator[ApiKeyShown]:
        """All API keys, oldest first."""
        return self.items(_OF["listApiKeys"], Page[ApiKeyShown])

    async def rotate_api_key(
        self, key_id: int, body: ApiKeyRotate, *, idempotency_key: str | None = None
    ) -> ApiKeyMade:
        """Make a key that takes the place of another, which ends after an overlap."""
        path = ApiKeyPath(key_id=key_id)
        return await self.call(_OF["rotateApiKey"], ApiKeyMade, path, body=body, idempotency_key=idempotency_key)

    async def revoke_api_key(self, key_id: int) -> ApiKeyShown:
        """End a key now."""
        return await self.call(_OF["revokeApiKey"], ApiKeyShown, ApiKeyPath(key_id=key_id))

    # issuer

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

    # merchant

    async def create_store(self, body: StoreCreate, *, idempotency_key: str | None = None) -> Store:
        """Make a store."""
        return await self.call(_OF["createStore"], Store, body=body, idempotency_key=idempotency_key)

    def list_stores(self) -> AsyncIterator[Store]:
        """All stores, oldest first."""
        return self.items(_OF["listStores"], Page[Store])

    async def get_store(self, store_id: int) -> Store:
        """A store."""
        return await self.call(_OF["getStore"], Store, StorePath(store_id=store_id))

    async def create_terminal(self, body: TerminalCreate, *, idempotency_key: str | None = None) -> TerminalMade:
        """Make a terminal, with the code that makes a device it."""
        return await self.call(_OF["createTerminal"], TerminalMade, body=body, idempotency_key=idempotency_key)

    def list_terminals(self, query: TerminalQuery | None = None) -> AsyncIterator[Terminal]:
        """All terminals, or those of a store, oldest first."""
        return self.items(_OF["listTerminals"], Page[Terminal], query=query)

    async def get_terminal(self, terminal_number: int) -> Terminal:
        """A terminal."""
        return await self.call(_OF["getTerminal"], Terminal, TerminalPath(terminal_number=terminal_number))

    async def change_terminal(self, terminal_number: int, body: TerminalChange) -> Terminal:
        """Disable a terminal, or enable it again."""
        path = TerminalPath(terminal_number=terminal_number)
        return await self.call(_OF["changeTerminal"], Terminal, path, body=body)

    async def create_terminal_activation(
        self, terminal_number: int, *, idempotency_key: str | None = None
    ) -> TerminalActivation:
        """Make a new activation code: the key of before works until the code is used."""
        path = TerminalPath(terminal_number=terminal_number)
        return await self.call(
            _OF["createTerminalActivation"], TerminalActivation, path, idempotency_key=idempotency_key
        )

    async def create_payment(self, body: PaymentCreate, *, idempotency_key: str | None = None) -> Payment:
        """Take a payment with a scanned code. 202: it waits for the customer's PIN, so ask later."""
        return await self.call(_OF["createPayment"], Payment, body=body, idempotency_key=idempotency_key)

    def list_payments(self, query: PaymentQuery | None = None) -> AsyncIterator[Payment]:
        """Payments, latest change first. What changes meanwhile moves to the front; archived ones are left out."""
        return self.items(_OF["listPayments"], Page[Payment], query=query)

    async def get_payment(self, payment_id: UUID) -> Payment:
        """A payment."""
        return await self.call(_OF["getPayment"], Payment, PaymentPath(payment_id=payment_id))

    async def cancel_payment(self, payment_id: UUID) -> Payment:
        """Take a payment back whole."""
        return await self.call(_OF["cancelPayment"], Payment, PaymentPath(payment_id=payment_id))

    async def cancel_reference(self, body: CancelByReference) -> Payment:
        """Take an order back, whether its payment has arrived or not: it cannot be paid any more."""
        return await self.call(_OF["cancelReference"], Payment, body=body)

    async def create_refund(
        self, payment_id: UUID, body: RefundCreate, *, idempotency_key: str | None = None
    ) -> Refund:
        """Give some or all of a sale back."""
        path = PaymentPath(payment_id=payment_id)
        return await self.call(_OF["createRefund"], Refund, path, body=body, idempotency_key=idempotency_key)

    def list_refunds(self, payment_id: UUID) -> AsyncIterator[Refund]:
        """What was given back on a payment, oldest first."""
        return self.items(_OF["listRefunds"], Page[Refund], PaymentPath(payment_id=payment_id))

    def list_shifts(self, query: ShiftQuery | None = None) -> AsyncIterator[Shift]:
        """Shifts, opened last first."""
        return self.items(_OF["listShifts"], Page[Shift], query=query)

    async def get_shift(self, shift_id: UUID) -> ShiftShown:
        """A shift and its report: the X-report while it is open, then the Z-report."""
        return await self.call(_OF["getShift"], ShiftShown, ShiftPath(shift_id=shift_id))

    def list_statements(self, query: StatementQuery | None = None) -> AsyncIterator[Statement]:
        """Statements of settled business days, latest first."""
        return self.items(_OF["listStatements"], Page[Statement], query=query)

    async def get_statement(self, business_date: str) -> Statement:
        """The statement of a business day."""
        return await self.call(_OF["getStatement"], Statement, StatementPath(business_date=business_date))

    async def get_balance(self) -> MerchantBalance:
        """What the merchant holds now, exact at this moment."""
        return await self.call(_OF["getBalance"], MerchantBalance)
