"""Opens a shop at a running server as its owner would: through the REST API, device by device."""

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

_AT_ONCE = 16

ItemT = TypeVar("ItemT")
DoneT = TypeVar("DoneT")


@asynccontextmanager
async def back_offices(
    url: str, admin_key: str, merchant_id: int, name: str
) -> AsyncIterator[tuple[ApiClient, ApiClient]]:
    """The issuer's and the merchant's back office; their keys end with the block."""
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(ApiClient(url, admin_key))

        async def back_office(role: Role, of_merchant: int | None) -> ApiClient:
            key = await admin.create_api_key(ApiKeyCreate(role=role, merchant_id=of_merchant, name=name))
            stack.push_async_callback(admin.revoke_api_key, key.key_id)
            return await stack.enter_async_context(ApiClient(url, key.key or ""))

        yield await back_office(Role.ISSUER, None), await back_office(Role.MERCHANT, merchant_id)


async def new_merchant(url: str, admin_key: str, name: str, fee_bps: int = 0) -> int:
    """A merchant's id."""
    async with ApiClient(url, admin_key) as admin:
        return (await admin.create_merchant(MerchantCreate(name=name, currency=CURRENCY, fee_bps=fee_bps))).merchant_id


async def new_till(url: str, merchant: ApiClient, store_id: int, name: str) -> Credentials:
    """A terminal, activated."""
    made = await merchant.create_terminal(TerminalCreate(store_id=store_id, name=name))
    return await _activated(url, made.activation_code)


async def new_wallet(url: str, issuer: ApiClient, merchant_id: int, name: str, balance_minor: int) -> Credentials:
    """A wallet that holds so much, and its phone, activated. Raises SystemExit when the money is refused."""
    wallet = await issuer.create_wallet(WalletCreate(name=name, currency=CURRENCY))
    if balance_minor:
        cash = CashCreate(wallet_number=wallet.wallet_number, merchant_id=merchant_id, amount_minor=balance_minor)
        topped_up = await issuer.create_top_up(cash)
        if topped_up.status != "approved":
            raise SystemExit(f"a wallet could not be topped up: {topped_up.decline_code}")
    phone = await issuer.create_wallet_device(wallet.wallet_number, WalletDeviceCreate())
    return await _activated(url, phone.activation_code)


async def open_shop(
    url: str, admin_key: str, *, terminals: int, wallets: int, balance_minor: int, name: str, fee_bps: int = 0
) -> Shop:
    """A merchant with one store, `terminals` tills and `wallets` wallets that hold `balance_minor` each; all activated.

    The keys of its back office last as long as this takes.
    """
    merchant_id = await new_merchant(url, admin_key, name, fee_bps)
    async with back_offices(url, admin_key, merchant_id, f"opening of {name}") as (issuer, merchant):
        store_id = (await merchant.create_store(StoreCreate(name="Hall"))).store_id

        async def till(number: int) -> Device:
            return _device(await new_till(url, merchant, store_id, f"Till {number + 1}"))

        async def customer(number: int) -> Device:
            return _device(await new_wallet(url, issuer, merchant_id, f"Customer {number + 1}", balance_minor))

        return Shop(merchant_id, await in_turn(range(terminals), till), await in_turn(range(wallets), customer))


def _device(got: Credentials) -> Device:
    return Device(DeviceId(got.kind, got.number, got.slot), got.device_key)


async def _activated(url: str, code: str | None) -> Credentials:
    # A transport of its own spares each activation the reading of all certificates.
    transport = httpx.AsyncHTTPTransport(verify=False) if url.startswith("http:") else None
    return await activate(url, code or "", request_id=uuid.uuid4(), transport=transport)


async def in_turn(items: Sequence[ItemT], work: Callable[[ItemT], Awaitable[DoneT]]) -> list[DoneT]:
    """What `work` makes of each item, in their order; a few at once."""
    done: list[DoneT] = []
    for start in range(0, len(items), _AT_ONCE):
        done += await asyncio.gather(*map(work, items[start : start + _AT_ONCE]))
    return done
