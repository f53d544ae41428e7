"""A real server with some payments, to scrape."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.end_to_end.server_process import ServerProcess, running_server
from tests.faults.concurrent_device import concurrent_device
from tests.gateway.test_pin import OTHER_PIN, confirm_message, pin_message
from tests.support import MASTER_KEYS, Shop, forged, scan_message

DOCKER = Path(__file__).parents[2] / "docker"
ALERTS = DOCKER / "prometheus" / "alerts.yaml"
SCRAPE_CONFIG = DOCKER / "prometheus" / "prometheus.yaml"
DASHBOARD = DOCKER / "grafana" / "dashboards" / "pos-server.json"
TOKEN = "a-token-for-the-tests"


@asynccontextmanager
async def observed_server(dsn: str, **variables: str) -> AsyncIterator[ServerProcess]:
    """Run `pos-server run` with TOKEN as its metrics token."""
    defaults = {"POS_DATABASE_URL": dsn, "POS_MASTER_KEYS": MASTER_KEYS, "POS_METRICS_TOKEN": TOKEN}
    async with running_server(**(defaults | variables)) as server:
        yield server


async def scrape(url: str) -> str:
    """Return the text of /metrics."""
    async with httpx.AsyncClient() as http:
        response = await http.get(f"{url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200, response.text
    return response.text


async def some_business(url: str, shop: Shop) -> None:
    """Make two approved payments, two declined ones and a rejected refund.

    The first approved payment is sent twice and canceled; the second one is confirmed after a wrong PIN.
    """
    wallet = shop.wallets[0]
    async with concurrent_device(url, shop.terminals[0]) as till, concurrent_device(url, wallet) as phone:
        scan = scan_message(wallet.code())
        for _ in range(2):
            assert (await till.ask(scan))["status"] == "approved"
        assert (await till.ask(scan_message(scan["code"])))["decline_code"] == "code_used"
        assert (await till.ask(scan_message(forged(shop.wallets[1].code()))))["decline_code"] == "code_invalid"
        cancel = {"type": "payment.cancel", "payment_id": scan["payment_id"]}
        assert (await till.ask(cancel))["status"] == "canceled"
        refund = {"type": "refund.create", "refund_id": scan["payment_id"], "payment_id": scan["payment_id"]}
        assert (await till.ask(refund | {"amount_minor": 1}))["code"] == "not_refundable"
        assert (await phone.ask(pin_message()))["type"] == "pin.changed"
        typed = await till.ask(scan_message(wallet.code(), entry="typed"))
        request = await phone.notice("payment.confirmation_required", typed["payment_id"])
        retry = await phone.ask(confirm_message(request, OTHER_PIN))
        assert (await phone.ask(confirm_message(retry)))["status"] == "approved"
