"""docs/operations.md: the metrics match a real scrape, and every alert has a section in the runbook."""

import json
import re
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pos_server.telemetry.traces import FLUSH_TIMEOUT_S
from tests.docs.documents import anchor, read
from tests.monitoring.observed import ALERTS, DASHBOARD, observed_server, scrape, some_business
from tests.support import Shop
from tests.telemetry.test_traces import spans

DOCUMENT = read("operations.md")
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]
]


@pytest.mark.asyncio
async def test_the_table_of_metrics_matches_a_scrape(dsn: str, shop: Shop) -> None:
    async with observed_server(dsn) as server:
        await some_business(server.url, shop)
        text = await scrape(server.url)
    scraped = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        scraped[name] = (family.type, ", ".join(sorted(labels)))
        assert family.documentation
    rows = DOCUMENT.section("Metrics").table("Metric", "Type", "Labels", "What it says")
    assert {row["Metric"]: (row["Type"], row["Labels"]) for row in rows} == scraped
    tasks = {
        sample.labels["task"]
        for family in text_string_to_metric_families(text)
        if family.name == "pos_task_down"
        for sample in family.samples
    }
    stated = DOCUMENT.section("Tasks").table("Task", "What it does", "Needed", "Reason")
    assert {name for row in stated for name in re.findall(r"[a-z0-9-]+", row["Task"])} == tasks


def test_every_alert_has_texts_and_a_section_in_the_runbook() -> None:
    sections = {section.title: section for section in DOCUMENT.section("Alerts").sections}
    assert list(sections) == [rule["alert"] for rule in RULES]
    for rule in RULES:
        texts = rule["annotations"]
        assert set(texts) == {"summary", "description", "runbook"}
        assert all(texts.values())
        assert texts["runbook"] == f"docs/operations.md#{anchor(rule['alert'])}"
        assert sections[rule["alert"]].text.strip()
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_the_job_name_matches_the_queries() -> None:
    (example,) = yaml.safe_load(DOCUMENT.section("Metrics").fence("yaml"))["scrape_configs"]
    queries = ALERTS.read_text("utf-8") + DASHBOARD.read_text("utf-8").replace("\\", "")
    assert f'job="{example["job_name"]}"' in queries
    (source,) = {json.dumps(panel["datasource"]) for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]}
    assert f"the uid `{json.loads(source)['uid']}`" in " ".join(DOCUMENT.section("Metrics").text.split())


@pytest.mark.asyncio
async def test_a_span_has_the_stated_contents(dsn: str, shop: Shop) -> None:
    (span,) = await spans(dsn, [shop.scan()])
    stated = re.findall(r"`([^`]+)`", DOCUMENT.section("Traces").text)
    assert {name for name in stated if name.startswith("pos.")} == set(span.attributes or ())
    events = [event.name for event in span.events]
    assert [name for name in stated if name in events] == events
    assert span.name in stated
    prose = " ".join(DOCUMENT.section("Traces").text.split())
    assert f"for {FLUSH_TIMEOUT_S} s and `OTEL_EXPORTER_OTLP_TIMEOUT`" in prose
