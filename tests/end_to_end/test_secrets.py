"""Secrets of a customer are in no log and in no row."""

import asyncpg
import pytest

from tests.end_to_end.server_process import running_server
from tests.faults.concurrent_device import concurrent_device
from tests.gateway.test_pin import OTHER_PIN, PIN, confirm_message, pin_message
from tests.support import MASTER_KEYS, Shop, forged, scan_message

pytestmark = pytest.mark.asyncio


async def test_pins_and_codes_are_in_no_log_and_no_row(dsn: str, shop: Shop, admin: asyncpg.Connection) -> None:
    wallet = shop.wallets[0]
    secrets = [PIN, OTHER_PIN, wallet.key.hex()]
    async with running_server(POS_DATABASE_URL=dsn, POS_MASTER_KEYS=MASTER_KEYS, POS_PIN_FREE_MINOR_MAX="0") as server:
        async with (
            concurrent_device(server.url, shop.terminals[0]) as till,
            concurrent_device(server.url, wallet) as phone,
        ):
            await phone.ask(pin_message("123456"))
            await phone.ask(pin_message(PIN) | {"request_id": 7})
            await phone.ask(pin_message(PIN))
            await phone.ask(pin_message(OTHER_PIN, old_pin=OTHER_PIN))
            for code in ("77not-a-code", forged(wallet.code()), wallet.code()):
                secrets.append(code)
                answer = await till.ask(scan_message(code))
            assert answer["type"] == "payment.pending"
            request = await phone.notice("payment.confirmation_required", answer["payment_id"])
            retry = await phone.ask(confirm_message(request, OTHER_PIN))
            assert (await phone.ask(confirm_message(retry)))["status"] == "approved"
            await phone.ask(confirm_message(retry) | {"version": "x"})
        assert await server.stop() == 0
    for secret in secrets:
        assert secret not in server.log
    for table in ("wallet", "wallet_device", "payment", "transfer"):
        rows = "\n".join(str(dict(row)) for row in await admin.fetch(f"select * from {table}"))
        assert rows
        for secret in secrets:
            assert secret not in rows, table
