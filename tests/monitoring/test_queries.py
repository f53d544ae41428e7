"""Every query of the dashboard and every alert, against scrapes of a real server process that has had payments."""

import json
import math
import re
from copy import deepcopy
from typing import Any

import pytest
import yaml

from tests.monitoring.observed import ALERTS, DASHBOARD, observed_server, samples_of, scrape, some_business
from tests.monitoring.promql import Samples, evaluate
from tests.support import Shop

RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]
]
PANELS: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
# What each alert is for: series, and the value in the last scrape that makes it fire.
SICK: dict[str, tuple[str, dict[str, str], float]] = {
    "PosServerDown": ("up", {}, 0),
    "PosNoneReady": ("pos_database_up", {}, 0),
    "PosDatabaseDown": ("pos_database_up", {}, 0),
    "PosOperationsRefused": ("pos_operations_refused_total", {"code": "busy"}, 100),
    "PosAuthorizationSlow": ("pos_authorization_seconds_bucket", {"le": "+Inf"}, 1e6),
    "PosQueueGrowing": ("pos_queue_operations", {}, 5000),
    "PosConflictsRising": ("pos_batch_conflicts_total", {}, 1e6),
    "PosSlowConsumers": ("pos_outbox_drops_total", {"kind": "wallet"}, 10),
    "PosCodesExpired": ("pos_payments_total", {"decline_code": "code_expired"}, 1e6),
    "PosFilesRunningOut": ("process_open_fds", {}, 1e9),
}


async def observed(dsn: str, shop: Shop) -> Samples:
    async with observed_server(dsn) as server:
        before = await scrape(server.url)
        await some_business(server.url, shop)
        return samples_of(before, await scrape(server.url))


def sick(samples: Samples, name: str, labels: dict[str, str], value: float) -> None:
    """Let the series have had this value for long, if it is a gauge, or have grown to it."""
    found = [series for of, series in samples.series[name].items() if labels.items() <= dict(of).items()]
    assert found, f"no {name} with {labels}"
    for points in found:
        begin = points[0][1] if name.endswith(("_total", "_bucket")) else value
        points[:] = [(points[0][0], begin), (points[-1][0], value)]


def firing(samples: Samples) -> set[str]:
    return {rule["alert"] for rule in RULES if evaluate(rule["expr"], samples)}


@pytest.mark.asyncio
async def test_every_panel_shows_something_and_no_alert_fires(dsn: str, shop: Shop) -> None:
    samples = await observed(dsn, shop)
    for panel in PANELS:
        for target in panel["targets"]:
            result = evaluate(target["expr"].replace("$__rate_interval", "1m"), samples)
            assert isinstance(result, dict)
            assert result, target["expr"]
            assert not any(map(math.isnan, result.values())), target["expr"]
            named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            for labels in result:
                assert named <= {name for name, _ in labels}, target["legendFormat"]
    assert firing(samples) == set()


@pytest.mark.asyncio
async def test_each_alert_fires_when_it_should(dsn: str, shop: Shop) -> None:
    samples = await observed(dsn, shop)
    assert set(SICK) == {rule["alert"] for rule in RULES}
    # One server without its database is all of them here.
    together = {"PosNoneReady", "PosDatabaseDown"}
    for alert, (name, labels, value) in SICK.items():
        broken = deepcopy(samples)
        sick(broken, name, labels, value)
        assert firing(broken) == (together if alert in together else {alert})
