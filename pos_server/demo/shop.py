"""The demo's shop: one merchant, two stores, three terminals, ten wallets. Made once, topped up each time.

Its back office does all of that as a real one would, through the REST API. Only the first key is made in the database,
as `pos-server keys create` does.
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
_AS_MUCH_A_DAY = WalletLimitsReplace(
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
    """The issuer's and the merchant's, for as long as the demo runs."""

    def __init__(self, issuer: ApiClient, merchant: ApiClient, merchant_id: int) -> None:
        self._issuer = issuer
        self._merchant = merchant
        self._merchant_id = merchant_id

    async def build_shop(self) -> Shop:
        """Find the shop or make it, and see to it that everybody has money."""
        return Shop(await self._terminals(), await self._wallets())

    async def activation_code(self, device: DeviceId) -> str:
        """A one-time code that makes whoever enters it this device."""
        if device.kind is DeviceKind.TERMINAL:
            terminal = await self._merchant.create_terminal_activation(device.number)
            return terminal.activation_code or ""
        wanted = WalletDeviceCreate(slot=device.slot)
        wallet = await self._issuer.create_wallet_device(device.number, wanted)
        return wallet.activation_code or ""

    async def _terminals(self) -> list[Terminal]:
        stores = {store.name: store.store_id async for store in self._merchant.list_stores()}
        found = {
            (terminal.store_id, terminal.name): terminal.terminal_number
            async for terminal in self._merchant.list_terminals()
        }
        terminals = []
        for store, names in _TILLS.items():
            if store not in stores:
                stores[store] = (await self._merchant.create_store(StoreCreate(name=store))).store_id
            for name in names:
                number = found.get((stores[store], name))
                if number is None:
                    wanted = TerminalCreate(store_id=stores[store], name=name)
                    number = (await self._merchant.create_terminal(wanted)).terminal_number
                terminals.append(Terminal(number, store, name))
        return terminals

    async def _wallets(self) -> list[Customer]:
        found = {wallet.name: wallet async for wallet in self._issuer.list_wallets() if wallet.currency == CURRENCY}
        customers = []
        for name in _CUSTOMERS:
            wallet = found.get(name)
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
        """The same day may be played again and again."""
        limits = await self._issuer.get_wallet_limits(wallet_number)
        if limits.resource.day_minor_max != MAX_AMOUNT_MINOR:
            await self._issuer.replace_wallet_limits(wallet_number, _AS_MUCH_A_DAY, if_match=limits.etag or "")


@asynccontextmanager
async def open_back_office(url: str, connection: asyncpg.Connection) -> AsyncIterator[BackOffice]:
    """A back office with keys of its own at the server at `url`; they end with the block."""
    key = api_key(Role.ADMIN, secrets.token_bytes(API_KEY_BYTES))
    keys = [await create_api_key(connection, key, Role.ADMIN, None, _KEY_NAME)]
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(ApiClient(url, key))
        try:
            merchant_id = await _merchant(admin)

            async def client(role: Role, of_merchant: int | None) -> ApiClient:
                wanted = ApiKeyCreate(role=role, merchant_id=of_merchant, name=_KEY_NAME)
                made = await admin.create_api_key(wanted)
                keys.append(made.key_id)
                return await stack.enter_async_context(ApiClient(url, made.key or ""))

            yield BackOffice(await client(Role.ISSUER, None), await client(Role.MERCHANT, merchant_id), merchant_id)
        finally:
            for key_id in reversed(keys):  # the admin's own at last
                await admin.revoke_api_key(key_id)


async def _merchant(admin: ApiClient) -> int:
    async for merchant in admin.list_merchants():
        if (merchant.name, merchant.currency) == (_MERCHANT, CURRENCY):
            return merchant.merchant_id
    made = await admin.create_merchant(MerchantCreate(name=_MERCHANT, currency=CURRENCY))
    return made.merchant_id
