"""The same queries in a real Prometheus, if one is installed. It scrapes a server as docs/operations.md describes.

`test_queries.py` checks everywhere that the names in the queries exist. Here each panel must show a number, and no
alert may fire.
"""

import asyncio
import json
import math
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.docs.documents import read
from tests.end_to_end.test_crash import free_port
from tests.monitoring.observed import ALERTS, TOKEN, observed_server, some_business
from tests.monitoring.test_queries import PANELS, RULES
from tests.support import Shop

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(
        not (shutil.which("prometheus") and shutil.which("promtool")),
        reason="no prometheus and promtool on PATH; test_queries.py has checked the names in the queries",
    ),
]
SCRAPED_WITHIN_S = 60


async def run(*command: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()


def configured(directory: Path, target: str) -> Path:
    """Write the configuration of the document for `target`, scraped every second. Returns its path."""
    config: dict[str, Any] = yaml.safe_load(read("operations.md").section("Metrics").fence("yaml"))
    (job,) = config["scrape_configs"]
    (directory / "token").write_text(TOKEN)
    job["authorization"]["credentials_file"] = str(directory / "token")
    job["static_configs"] = [{"targets": [target]}]
    config["rule_files"] = [str(ALERTS)]
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    path = directory / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@asynccontextmanager
async def prometheus(config: Path) -> AsyncIterator[httpx.AsyncClient]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={config.parent / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            yield http
    finally:
        process.kill()
        await process.wait()


async def query(http: httpx.AsyncClient, expression: str) -> list[float]:
    response = await http.get("/api/v1/query", params={"query": expression})
    body = response.json()
    assert body["status"] == "success", (expression, body)
    return [float(result["value"][1]) for result in body["data"]["result"]]


async def until_there(http: httpx.AsyncClient, expression: str) -> None:
    async with asyncio.timeout(SCRAPED_WITHIN_S):
        while True:
            try:
                if await query(http, expression):
                    return
            except (httpx.TransportError, json.JSONDecodeError):
                pass  # Prometheus is starting
            await asyncio.sleep(0.2)


async def test_prometheus_accepts_the_rules_and_finds_every_series(dsn: str, shop: Shop, tmp_path: Path) -> None:
    await run("promtool", "check", "rules", ALERTS)
    async with observed_server(dsn) as server:
        config = configured(tmp_path, server.url.removeprefix("http://"))
        await run("promtool", "check", "config", config)
        async with prometheus(config) as http:
            await until_there(http, 'pos_database_up{job="pos-server"} == 1')
            await some_business(server.url, shop)
            await until_there(http, 'rate(pos_payments_total{outcome="canceled"}[1m]) > 0')
            for panel in PANELS:
                for target in panel["targets"]:
                    values = await query(http, target["expr"].replace("$__rate_interval", "1m"))
                    assert values, target["expr"]
                    assert not any(map(math.isnan, values)), target["expr"]
            for rule in RULES:
                assert await query(http, rule["expr"]) == [], rule["alert"]
            groups = (await http.get("/api/v1/rules")).json()["data"]["groups"]
        assert [rule["name"] for group in groups for rule in group["rules"]] == [rule["alert"] for rule in RULES]
        assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
