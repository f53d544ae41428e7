"""A real server that has been through something, as a scrape sees it. Nothing here is a test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.end_to_end.server_process import ServerProcess, running_server
from tests.faults.talker import talking
from tests.gateway.test_pin import OTHER_PIN, confirm_message, pin_message
from tests.support import MASTER_KEYS, Shop, forged, scan_message

DOCKER = Path(__file__).parents[2] / "docker"
ALERTS = DOCKER / "prometheus" / "alerts.yaml"
SCRAPE_CONFIG = DOCKER / "prometheus" / "prometheus.yaml"
DASHBOARD = DOCKER / "grafana" / "dashboards" / "pos-server.json"
TOKEN = "a-token-for-the-tests"


@asynccontextmanager
async def observed_server(dsn: str, **variables: str) -> AsyncIterator[ServerProcess]:
    """`pos-server run`, which may be scraped with TOKEN."""
    ours = {"POS_DATABASE_URL": dsn, "POS_MASTER_KEYS": MASTER_KEYS, "POS_METRICS_TOKEN": TOKEN}
    async with running_server(**(ours | variables)) as server:
        yield server


async def scrape(url: str) -> str:
    """The text of /metrics."""
    async with httpx.AsyncClient() as http:
        response = await http.get(f"{url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200, response.text
    return response.text


async def some_business(url: str, shop: Shop) -> None:
    """Two payments approved, one of them asked for twice and canceled, the other after a wrong PIN; two declined.

    And a refund that is refused.
    """
    wallet = shop.wallets[0]
    async with talking(url, shop.terminals[0]) as till, talking(url, wallet) as phone:
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
        asked = await phone.told("payment.confirmation_required", typed["payment_id"])
        again = await phone.ask(confirm_message(asked, OTHER_PIN))
        assert (await phone.ask(confirm_message(again)))["status"] == "approved"
