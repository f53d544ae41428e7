"""Open a shop at a running server through the REST API, device by device, as its owner would."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import httpx

from loadtest.shared.seed import CURRENCY, Device, Shop
from pos_client import Credentials, activate
from pos_client.rest.client import ApiClient
from pos_server.core.credentials.api_keys import Role
from pos_server.core.credentials.device_keys import DeviceId
from pos_server.core.rest.admin import ApiKeyCreate, MerchantCreate
from pos_server.core.rest.issuer import CashCreate, WalletCreate, WalletDeviceCreate
from pos_server.core.rest.merchant_stores import StoreCreate, TerminalCreate

_CHUNK = 16

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@asynccontextmanager
async def back_offices(
    url: str, admin_key: str, merchant_id: int, name: str
) -> AsyncIterator[tuple[ApiClient, ApiClient]]:
    """Yield the API clients of the issuer and the merchant; their keys are revoked at the end of the block."""
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(ApiClient(url, admin_key))

        async def back_office(role: Role, key_merchant_id: int | None) -> ApiClient:
            key = await admin.create_api_key(ApiKeyCreate(role=role, merchant_id=key_merchant_id, name=name))
            stack.push_async_callback(admin.revoke_api_key, key.key_id)
            return await stack.enter_async_context(ApiClient(url, key.key or ""))

        yield await back_office(Role.ISSUER, None), await back_office(Role.MERCHANT, merchant_id)


async def new_merchant(url: str, admin_key: str, name: str, fee_bps: int = 0) -> int:
    """Create a merchant and return its id."""
    async with ApiClient(url, admin_key) as admin:
        return (await admin.create_merchant(MerchantCreate(name=name, currency=CURRENCY, fee_bps=fee_bps))).merchant_id


async def new_till(url: str, merchant: ApiClient, store_id: int, name: str) -> Credentials:
    """Create and activate a terminal."""
    terminal = await merchant.create_terminal(TerminalCreate(store_id=store_id, name=name))
    return await _activate(url, terminal.activation_code)


async def new_wallet(url: str, issuer: ApiClient, merchant_id: int, name: str, balance_minor: int) -> Credentials:
    """Create a wallet with this balance and activate its phone. Raises SystemExit if the top-up is declined."""
    wallet = await issuer.create_wallet(WalletCreate(name=name, currency=CURRENCY))
    if balance_minor:
        cash = CashCreate(wallet_number=wallet.wallet_number, merchant_id=merchant_id, amount_minor=balance_minor)
        top_up = await issuer.create_top_up(cash)
        if top_up.status != "approved":
            raise SystemExit(f"a top-up was declined: {top_up.decline_code}")
    phone = await issuer.create_wallet_device(wallet.wallet_number, WalletDeviceCreate())
    return await _activate(url, phone.activation_code)


async def open_shop(
    url: str, admin_key: str, *, terminals: int, wallets: int, balance_minor: int, name: str, fee_bps: int = 0
) -> Shop:
    """Open a merchant with one store, `terminals` tills and `wallets` wallets of `balance_minor` each, all activated.

    The API keys for this are revoked at the end.
    """
    merchant_id = await new_merchant(url, admin_key, name, fee_bps)
    async with back_offices(url, admin_key, merchant_id, f"opening of {name}") as (issuer, merchant):
        store_id = (await merchant.create_store(StoreCreate(name="Hall"))).store_id

        async def till(number: int) -> Device:
            return _device(await new_till(url, merchant, store_id, f"Till {number + 1}"))

        async def customer(number: int) -> Device:
            return _device(await new_wallet(url, issuer, merchant_id, f"Customer {number + 1}", balance_minor))

        return Shop(
            merchant_id, await map_in_chunks(range(terminals), till), await map_in_chunks(range(wallets), customer)
        )


def _device(credentials: Credentials) -> Device:
    return Device(DeviceId(credentials.kind, credentials.number, credentials.slot), credentials.device_key)


async def _activate(url: str, code: str | None) -> Credentials:
    # httpx's default transport would load all certificates for each activation.
    transport = httpx.AsyncHTTPTransport(verify=False) if url.startswith("http:") else None
    return await activate(url, code or "", request_id=uuid.uuid4(), transport=transport)


async def map_in_chunks(items: Sequence[ItemT], work: Callable[[ItemT], Awaitable[ResultT]]) -> list[ResultT]:
    """Apply `work` to all items, a chunk of them concurrently, and return the results in order."""
    results: list[ResultT] = []
    for start in range(0, len(items), _CHUNK):
        results += await asyncio.gather(*map(work, items[start : start + _CHUNK]))
    return results
