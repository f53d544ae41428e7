"""Leadership: one server leads, and when it dies another one takes over."""

import asyncpg
import pytest

from pos_server.server import serving
from tests.gateway.test_pin import ask_for_pin
from tests.support import KEYRING, Shop, logged_in, receive, settings

pytestmark = pytest.mark.asyncio

# pg_locks shows a bigint key as its two halves.
_HALVES = int.from_bytes(b"pos-"), int.from_bytes(b"lead")
_LEADERS = """
select pid from pg_locks where locktype = 'advisory' and classid = $1::bigint::oid and objid = $2::bigint::oid
    and database = (select oid from pg_database where datname = current_database()) and granted
"""


async def leaders(admin: asyncpg.Connection) -> list[int]:
    return [row["pid"] for row in await admin.fetch(_LEADERS, *_HALVES)]


async def test_another_server_takes_over(dsn: str, shop: Shop, admin: asyncpg.Connection) -> None:
    quick = settings(pin_free_minor_max=0, confirmation_s=0.2)
    async with (
        serving(quick, KEYRING, dsn) as here,
        serving(quick, KEYRING, dsn),
        logged_in(here.url, shop.terminals[0]) as till,
        logged_in(here.url, shop.wallets[0]) as phone,
    ):
        seen = set[int]()
        for _ in range(3):
            await ask_for_pin(till, phone, shop.wallets[0].code())
            assert (await receive(till))["status"] == "expired"
            assert (await receive(phone))["status"] == "expired"
            (leader,) = await leaders(admin)
            assert leader not in seen
            seen.add(leader)
            await admin.execute("select pg_terminate_backend($1)", leader)
