"""The demo's shop: one merchant, two stores, three terminals, ten wallets. Created once, topped up at each run.

The back office uses the REST API, as a real one would. Only the first API key is created in the database, as
`pos-server keys create` does.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg

from pos_client.rest.client import ApiClient

from ..core.credentials.api_keys import API_KEY_BYTES, Role, api_key
from ..core.credentials.device_keys import DeviceId, DeviceKind
from ..core.money import MAX_AMOUNT_MINOR
from ..core.rest.admin import ApiKeyCreate, MerchantCreate
from ..core.rest.issuer import CashCreate, WalletCreate, WalletDeviceCreate, WalletLimitsReplace
from ..core.rest.merchant_stores import StoreCreate, TerminalCreate
from ..ledger.api_keys import create_api_key

CURRENCY = "EUR"
POOR_CUSTOMER = "Jo"
_MERCHANT = "Corner Canteen"
_TILLS = {"Main hall": ("Till 1", "Till 2"), "Garden kiosk": ("Till 3",)}
_CUSTOMERS = ("Ada", "Bo", "Chen", "Dina", "Emil", "Fay", "Goran", "Hana", "Ines", POOR_CUSTOMER)
_FULL_MINOR = 60_00
_POOR_MINOR = 3_00
_NO_DAY_LIMITS = WalletLimitsReplace(
    day_minor_max=MAX_AMOUNT_MINOR, pin_free_day_count_max=MAX_AMOUNT_MINOR, pin_free_day_minor_max=MAX_AMOUNT_MINOR
)
_KEY_NAME = "pos-server demo"


@dataclass(frozen=True, slots=True)
class Terminal:
    number: int
    store: str
    name: str


@dataclass(frozen=True, slots=True)
class Customer:
    number: int
    name: str


@dataclass(frozen=True, slots=True)
class Shop:
    terminals: list[Terminal]
    wallets: list[Customer]


class BackOffice:
    """The work of the issuer and of the merchant."""

    def __init__(self, issuer: ApiClient, merchant: ApiClient, merchant_id: int) -> None:
        self._issuer = issuer
        self._merchant = merchant
        self._merchant_id = merchant_id

    async def build_shop(self) -> Shop:
        """Find or create the shop, and top up every wallet."""
        return Shop(await self._terminals(), await self._wallets())

    async def activation_code(self, device: DeviceId) -> str:
        """Return a one-time activation code for the device."""
        if device.kind is DeviceKind.TERMINAL:
            terminal = await self._merchant.create_terminal_activation(device.number)
            return terminal.activation_code or ""
        wallet = await self._issuer.create_wallet_device(device.number, WalletDeviceCreate(slot=device.slot))
        return wallet.activation_code or ""

    async def _terminals(self) -> list[Terminal]:
        stores = {store.name: store.store_id async for store in self._merchant.list_stores()}
        numbers = {
            (terminal.store_id, terminal.name): terminal.terminal_number
            async for terminal in self._merchant.list_terminals()
        }
        terminals = []
        for store, names in _TILLS.items():
            if store not in stores:
                stores[store] = (await self._merchant.create_store(StoreCreate(name=store))).store_id
            for name in names:
                number = numbers.get((stores[store], name))
                if number is None:
                    body = TerminalCreate(store_id=stores[store], name=name)
                    number = (await self._merchant.create_terminal(body)).terminal_number
                terminals.append(Terminal(number, store, name))
        return terminals

    async def _wallets(self) -> list[Customer]:
        wallets = {wallet.name: wallet async for wallet in self._issuer.list_wallets() if wallet.currency == CURRENCY}
        customers = []
        for name in _CUSTOMERS:
            wallet = wallets.get(name)
            if wallet is None:
                wallet = await self._issuer.create_wallet(WalletCreate(name=name, currency=CURRENCY))
            missing_minor = (_POOR_MINOR if name == POOR_CUSTOMER else _FULL_MINOR) - wallet.balance_minor
            if missing_minor > 0:
                cash = CashCreate(
                    wallet_number=wallet.wallet_number, merchant_id=self._merchant_id, amount_minor=missing_minor
                )
                await self._issuer.create_top_up(cash)
            await self._lift_day_limits(wallet.wallet_number)
            customers.append(Customer(wallet.wallet_number, name))
        return customers

    async def _lift_day_limits(self, wallet_number: int) -> None:
        """Raise the limits per day, so that the demo can run many times a day."""
        limits = await self._issuer.get_wallet_limits(wallet_number)
        if limits.resource.day_minor_max != MAX_AMOUNT_MINOR:
            await self._issuer.replace_wallet_limits(wallet_number, _NO_DAY_LIMITS, if_match=limits.etag or "")


@asynccontextmanager
async def open_back_office(url: str, connection: asyncpg.Connection) -> AsyncIterator[BackOffice]:
    """Yield a back office for the server at `url`. Its API keys are revoked at the end of the block."""
    key = api_key(Role.ADMIN, secrets.token_bytes(API_KEY_BYTES))
    keys = [await create_api_key(connection, key, Role.ADMIN, None, _KEY_NAME)]
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(ApiClient(url, key))
        try:
            merchant_id = await _merchant(admin)

            async def client(role: Role, key_merchant_id: int | None) -> ApiClient:
                body = ApiKeyCreate(role=role, merchant_id=key_merchant_id, name=_KEY_NAME)
                created = await admin.create_api_key(body)
                keys.append(created.key_id)
                return await stack.enter_async_context(ApiClient(url, created.key or ""))

            yield BackOffice(await client(Role.ISSUER, None), await client(Role.MERCHANT, merchant_id), merchant_id)
        finally:
            for key_id in reversed(keys):  # the admin's own key last
                await admin.revoke_api_key(key_id)


async def _merchant(admin: ApiClient) -> int:
    async for merchant in admin.list_merchants():
        if (merchant.name, merchant.currency) == (_MERCHANT, CURRENCY):
            return merchant.merchant_id
    created = await admin.create_merchant(MerchantCreate(name=_MERCHANT, currency=CURRENCY))
    return created.merchant_id
