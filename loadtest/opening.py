"""Opens a shop at a running server as its owner would: through the REST API, device by device."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TypeVar

import httpx

from loadtest.seed import CURRENCY, Device, Shop
from pos_client import Credentials, activate
from pos_client.api import ApiClient
from pos_server.core.api_keys import Role
from pos_server.core.device_keys import DeviceId
from pos_server.core.rest.admin import ApiKeyCreate, MerchantCreate
from pos_server.core.rest.issuer import CashCreate, WalletCreate, WalletDeviceCreate
from pos_server.core.rest.merchant_places import StoreCreate, TerminalCreate

_AT_ONCE = 16

ItemT = TypeVar("ItemT")
DoneT = TypeVar("DoneT")


async def open_shop(
    url: str, admin_key: str, *, terminals: int, wallets: int, balance_minor: int, name: str, fee_bps: int = 0
) -> Shop:
    """A merchant with one store, `terminals` tills and `wallets` wallets that hold `balance_minor` each; all activated.

    The keys of its back office last as long as this takes.
    """
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(ApiClient(url, admin_key))
        made = await admin.create_merchant(MerchantCreate(name=name, currency=CURRENCY, fee_bps=fee_bps))
        merchant_id = made.merchant_id

        async def back_office(role: Role, of_merchant: int | None) -> ApiClient:
            key = await admin.create_api_key(
                ApiKeyCreate(role=role, merchant_id=of_merchant, name=f"opening of {name}")
            )
            stack.push_async_callback(admin.revoke_api_key, key.key_id)
            return await stack.enter_async_context(ApiClient(url, key.key or ""))

        issuer = await back_office(Role.ISSUER, None)
        merchant = await back_office(Role.MERCHANT, merchant_id)
        store_id = (await merchant.create_store(StoreCreate(name="Hall"))).store_id

        async def till(number: int) -> Device:
            made = await merchant.create_terminal(TerminalCreate(store_id=store_id, name=f"Till {number + 1}"))
            return await _activated(url, made.activation_code)

        async def customer(number: int) -> Device:
            wallet = await issuer.create_wallet(WalletCreate(name=f"Customer {number + 1}", currency=CURRENCY))
            if balance_minor:
                cash = CashCreate(
                    wallet_number=wallet.wallet_number, merchant_id=merchant_id, amount_minor=balance_minor
                )
                topped_up = await issuer.create_top_up(cash)
                if topped_up.status != "approved":
                    raise SystemExit(f"a wallet could not be topped up: {topped_up.decline_code}")
            phone = await issuer.create_wallet_device(wallet.wallet_number, WalletDeviceCreate())
            return await _activated(url, phone.activation_code)

        return Shop(merchant_id, await _all(range(terminals), till), await _all(range(wallets), customer))


async def _activated(url: str, code: str | None) -> Device:
    # A transport of its own spares each activation the reading of all certificates.
    transport = httpx.AsyncHTTPTransport(verify=False) if url.startswith("http:") else None
    got: Credentials = await activate(url, code or "", request_id=uuid.uuid4(), transport=transport)
    return Device(DeviceId(got.kind, got.number, got.slot), got.device_key)


async def _all(items: Sequence[ItemT], work: Callable[[ItemT], Awaitable[DoneT]]) -> list[DoneT]:
    """What `work` makes of each item, in their order; a few at once."""
    done: list[DoneT] = []
    for start in range(0, len(items), _AT_ONCE):
        done += await asyncio.gather(*map(work, items[start : start + _AT_ONCE]))
    return done
