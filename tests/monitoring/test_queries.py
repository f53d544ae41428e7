"""Every metric, label and label value in the dashboard and the alerts exists in a scrape of a real server process.

The alerts' thresholds are not evaluated here: `test_with_prometheus.py` does that, where a Prometheus is installed.
"""

import json
import re
from typing import Any

import pytest
import yaml

from tests.monitoring.observed import ALERTS, DASHBOARD, SCRAPE_CONFIG, observed_server, scrape, some_business
from tests.monitoring.promql import result_labels, series_of
from tests.support import Shop

RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]
]
PANELS: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
# Each query, and the text in which Prometheus or Grafana fills in labels of its result.
QUERIES: list[tuple[str, str]] = [
    *((rule["expr"], " ".join(rule["annotations"].values())) for rule in RULES),
    *(
        (target["expr"].replace("$__rate_interval", "1m"), target["legendFormat"])
        for panel in PANELS
        for target in panel["targets"]
    ),
]


@pytest.mark.asyncio
async def test_every_name_in_the_queries_exists_in_a_scrape(dsn: str, shop: Shop) -> None:
    async with observed_server(dsn) as server:
        await some_business(server.url, shop)
        exposition = await scrape(server.url)
    job = yaml.safe_load(SCRAPE_CONFIG.read_text("utf-8"))["scrape_configs"][0]["job_name"]
    series = series_of(exposition, {"job": job, "instance": "one"})
    for query, text in QUERIES:
        shown_labels = set(re.findall(r"{{\s*(?:\$labels\.)?(\w+)\s*}}", text))
        assert shown_labels <= result_labels(query, series), query
