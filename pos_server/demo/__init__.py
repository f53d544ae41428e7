"""`pos-server demo`: a real server, a small shop, and a short store day over real sockets.

The demo shows how all parts work together. The back office creates the shop through the REST API; tills and wallets are
clients of `pos_client`. A wallet draws its code as an image, a till reads that image and scans. Every outcome is
compared with the expected one, every notice is awaited, and an audit ends the day.

    shop.py               the shop: merchant, stores, terminals, wallets; created through the REST API
    day.py                the rush: all tills sell concurrently, with declines in between
    pin_cancel_refund.py  after the rush: a payment with a PIN, a cancel, a refund
    report.py             the printed lines and the summary
"""

import asyncio
import json
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..core.credentials.device_keys import DeviceId, DeviceKind, Keyring
from ..ledger.audit import AuditReport, audit
from ..ledger.database import connect
from ..server import RunningServer, serving
from ..settings import Settings
from .day import play_day
from .report import Report, by_hand_text
from .shop import BackOffice, Shop, open_back_office

# The demo itself uses slot 0 of every wallet.
_SLOT_BY_HAND = 1


async def run_demo(
    settings: Settings, keyring: Keyring, dsn: str, data_dir: Path | None, *, once: bool, as_json: bool
) -> int:
    """Play the store day and print it. Then serve until a signal arrives, unless `once`.

    Returns the exit status: 1 if an outcome is unexpected, a notice is missing, or the audit fails.
    """
    async with serving(settings, keyring, dsn) as server:
        connection = await connect(dsn, timeout_s=settings.database_connect_timeout_s)
        try:
            async with open_back_office(server.url, connection) as back_office:
                report = Report(quiet=as_json)
                shop = await back_office.build_shop()
                if not await _unless_stopped(server, play_day(server.url, shop, back_office, report)):
                    return 0
                audit_report = await _audit(dsn, settings)
                report.summary(audit_report)
                if as_json:
                    print(json.dumps(report.as_json(audit_report)), flush=True)  # noqa: T201
                if not once:
                    codes = await _codes_by_hand(back_office, shop)
                    report.say(by_hand_text(server.url, *codes, data_dir))
                    await server.stop_wanted()
        finally:
            await connection.close()
    return 0 if report.as_expected and audit_report.ok else 1


async def _unless_stopped(server: RunningServer, day: Coroutine[Any, Any, None]) -> bool:
    """Run the store day. Returns False if a signal ended it early."""
    playing = asyncio.ensure_future(day)
    stopping = asyncio.ensure_future(server.stop_wanted())
    await asyncio.wait((playing, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if playing.done():
        await playing
        return True
    playing.cancel()
    with suppress(asyncio.CancelledError):
        await playing
    return False


async def _audit(dsn: str, settings: Settings) -> AuditReport:
    connection = await connect(dsn, timeout_s=settings.database_connect_timeout_s, role=None)
    try:
        return await audit(connection)
    finally:
        await connection.close()


async def _codes_by_hand(back_office: BackOffice, shop: Shop) -> tuple[str, str]:
    terminal = DeviceId(DeviceKind.TERMINAL, shop.terminals[-1].number)
    wallet = DeviceId(DeviceKind.WALLET, shop.wallets[0].number, _SLOT_BY_HAND)
    return await back_office.activation_code(terminal), await back_office.activation_code(wallet)
