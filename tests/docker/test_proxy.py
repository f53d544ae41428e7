"""docker/proxy: timeouts fit the servers' settings, and payments continue behind a real HAProxy if one is installed."""

import asyncio
import contextlib
import csv
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import asyncpg
import httpx
import pytest

from pos_client import Backoff, TerminalClient
from pos_server.settings import Settings
from tests.docker.files import DOCKER, seconds
from tests.end_to_end.server_process import running_server
from tests.end_to_end.test_crash import credentials, free_port
from tests.support import MASTER_KEYS, build_shop, new_id

CONFIG = (DOCKER / "proxy" / "haproxy.cfg").read_text()
HAPROXY = shutil.which("haproxy")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed: apt-get install haproxy")
# Loopback addresses, so that both servers can use the same port.
SERVERS = ("127.0.0.11", "127.0.0.12")
START_TIMEOUT_S = 30


def timeout_s(name: str) -> float:
    (duration,) = re.findall(rf"^    timeout {name} (\w+)", CONFIG, re.MULTILINE)
    return seconds(duration)


def default(setting: str) -> float:
    value: float = Settings.model_fields[setting].default
    return value


def test_the_server_closes_a_silent_websocket_before_the_proxy_does() -> None:
    assert timeout_s("tunnel") > default("heartbeat_s") + default("heartbeat_timeout_s")


def test_a_request_times_out_at_the_server_before_it_does_at_the_proxy() -> None:
    assert timeout_s("server") > default("api_timeout_s")
    assert timeout_s("client") > default("api_timeout_s")


class Dns(asyncio.DatagramProtocol):
    """Answers every query with the same addresses, as Docker's DNS does for the replicas of a service (RFC 1035)."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = [socket.inet_aton(address) for address in addresses]

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        end = data.index(b"\0", 12) + 5
        is_a = data[end - 4 : end - 2] == b"\0\1"
        answers = [b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + each for each in self._addresses] if is_a else []
        header = data[:2] + struct.pack(">HHHHH", 0x8180, 1, len(answers), 0, 0)
        self._transport.sendto(header + data[12:end] + b"".join(answers), addr)


class Proxy:
    """A running HAProxy with the configuration in docker/proxy."""

    def __init__(self, url: str, admin: Path) -> None:
        self.url = url
        self._admin = admin

    async def up(self, count: int) -> None:
        """Wait until `count` servers are ready according to HAProxy (management guide, "show stat")."""
        async with asyncio.timeout(START_TIMEOUT_S):
            while await self._up() != count:  # noqa: ASYNC110 (HAProxy has no event for it)
                await asyncio.sleep(0.05)

    async def _up(self) -> int:
        try:
            reader, writer = await asyncio.open_unix_connection(self._admin)
        except OSError:
            return 0
        writer.write(b"show stat\n")
        rows = list(csv.DictReader((await reader.read()).decode().splitlines()))
        writer.close()
        return sum(
            row["# pxname"] == "servers" and row["svname"] != "BACKEND" and row["status"] == "UP" for row in rows
        )


@asynccontextmanager
async def running_proxy(directory: Path, server_port: int) -> AsyncIterator[Proxy]:
    """Run HAProxy in front of SERVERS, with other ports, fewer connections and a socket for `show stat`."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Dns(*SERVERS), local_addr=("127.0.0.1", 0)
    )
    dns_port, port, admin = transport.get_extra_info("sockname")[1], free_port(), directory / "admin"
    config = CONFIG
    for old, new in (
        ("127.0.0.11:53", f"127.0.0.1:{dns_port}"),
        ("bind :8080", f"bind 127.0.0.1:{port}"),
        ("server:8080", f"server:{server_port}"),
        ("maxconn 40000", "maxconn 1000"),  # more connections can exceed the file limit of this process
        ("global\n    log", f"global\n    stats socket {admin}\n    log"),
    ):
        assert config.count(old) == 1
        config = config.replace(old, new)
    (directory / "haproxy.cfg").write_text(config)
    assert HAPROXY is not None
    process = await asyncio.create_subprocess_exec(HAPROXY, "-db", "-f", directory / "haproxy.cfg")
    try:
        yield Proxy(f"http://127.0.0.1:{port}", admin)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        transport.close()


@needs_haproxy
@pytest.mark.asyncio
@pytest.mark.long
async def test_payments_continue_during_a_rolling_restart(
    tmp_path: Path, dsn: str, connection: asyncpg.Connection
) -> None:
    shop = await build_shop(connection, terminals=2, wallets=12)
    port = free_port()
    own = {"POS_DATABASE_URL": dsn, "POS_MASTER_KEYS": MASTER_KEYS, "POS_TRUSTED_PROXIES": "127.0.0.1"}
    statuses: list[str] = []

    async def sell(till: TerminalClient, position: int, until: asyncio.Task[int]) -> None:
        """Sell at one till until the server has stopped, and once more after that."""
        while True:
            ended = until.done()
            wallet = shop.wallets[2 * (len(statuses) % 6) + position]
            result = await till.scan(code=wallet.code(), amount_minor=1, reference=f"{position}-{len(statuses)}")
            statuses.append(result.decline_code or result.status)
            if ended:
                return
            await asyncio.sleep(0.5)  # a wallet has ten codes per 30 s

    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(running_server("--host", host, port=port, **own)) for host in SERVERS
        ]
        proxy = await stack.enter_async_context(running_proxy(tmp_path, port))
        await proxy.up(2)
        tills = [
            await stack.enter_async_context(
                TerminalClient(credentials(terminal, proxy.url), backoff=Backoff(base_s=0.1, cap_s=1))
            )
            for terminal in shop.terminals
        ]
        # Wherever the tills are connected at first, each server is once the only one left.
        for host, server in zip(SERVERS, servers, strict=True):
            stopping = asyncio.create_task(server.stop())
            await asyncio.gather(*(sell(till, position, stopping) for position, till in enumerate(tills)))
            assert await stopping == 0
            await stack.enter_async_context(running_server("--host", host, port=port, **own))
            await proxy.up(2)
    assert len(statuses) >= 4
    assert set(statuses) == {"approved"}


@needs_haproxy
@pytest.mark.asyncio
@pytest.mark.long
async def test_servers_see_the_address_of_the_device_and_metrics_are_not_public(tmp_path: Path, dsn: str) -> None:
    port = free_port()
    own = {"POS_DATABASE_URL": dsn, "POS_MASTER_KEYS": MASTER_KEYS, "POS_TRUSTED_PROXIES": "127.0.0.1"}

    async def activate(proxy: Proxy, address: str, **headers: str) -> int:
        transport = httpx.AsyncHTTPTransport(local_address=address)
        async with httpx.AsyncClient(transport=transport, base_url=proxy.url, headers=headers) as client:
            body = {"activation_code": "0000-0000-0000-0000", "request_id": str(new_id())}
            return (await client.post("/v1/activations", json=body)).status_code

    async with (
        running_server("--host", SERVERS[0], port=port, POS_ACTIVATION_FAILURES_MAX="1", **own),
        running_proxy(tmp_path, port) as proxy,
        httpx.AsyncClient(base_url=proxy.url) as client,
    ):
        await proxy.up(1)
        unknown, too_many = HTTPStatus.NOT_FOUND, HTTPStatus.TOO_MANY_REQUESTS
        assert await activate(proxy, "127.0.0.21") == unknown
        assert await activate(proxy, "127.0.0.21") == too_many
        assert await activate(proxy, "127.0.0.21", **{"X-Forwarded-For": "203.0.113.1"}) == too_many
        assert await activate(proxy, "127.0.0.22") == unknown
        for path in ("/metrics", "//metrics", "/%6detrics", "/metrics/"):
            response = await client.get(f"{proxy.url}{path}")
            assert (response.status_code, response.headers["content-type"]) == (404, "text/html"), (
                f"{path}: the response must come from the proxy"
            )
        assert (await client.get("/readyz")).text == "ready\n"


@needs_haproxy
def test_the_configuration_with_tls_is_valid(tmp_path: Path) -> None:
    pem, certificate = tmp_path / "tls.pem", tmp_path / "certificate"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*request, "-keyout", pem, "-out", certificate], check=True, capture_output=True)
    pem.write_bytes(pem.read_bytes() + certificate.read_bytes())
    tls = (DOCKER / "proxy" / "tls.cfg").read_text()
    assert tls.count("/run/secrets/tls.pem") == 1
    (tmp_path / "tls.cfg").write_text(tls.replace("/run/secrets/tls.pem", str(pem)))
    assert HAPROXY is not None
    command = [HAPROXY, "-c", "-f", DOCKER / "proxy" / "haproxy.cfg", "-f", tmp_path / "tls.cfg"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr
