"""A proxy in front of a Unix socket that cuts connections on purpose."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

Rule = Callable[[bytes], bool]


class Proxy:
    """Forwards bytes both ways. `cut_requests` and `cut_answers` get each chunk; True cuts the connection."""

    def __init__(self, dsn: str, target: str) -> None:
        self.dsn = dsn
        self.cut_requests: Rule = lambda chunk: False
        self.cut_answers: Rule = lambda chunk: False
        self.away = False
        self.cuts = 0
        self._target = target
        self._open = 0
        self._none_open = asyncio.Event()
        self._closing = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self.away:
                return
            upstream_reader, upstream_writer = await asyncio.open_unix_connection(self._target)
            pumps = [
                asyncio.create_task(self._pump(reader, upstream_writer, lambda chunk: self.cut_requests(chunk))),
                asyncio.create_task(self._pump(upstream_reader, writer, lambda chunk: self.cut_answers(chunk))),
                asyncio.create_task(self._wait_until_closing()),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
                upstream_writer.close()
        finally:
            writer.close()
            self._open -= 1
            if not self._open:
                self._none_open.set()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: Rule) -> None:
        while chunk := await reader.read(65536):
            if cut(chunk):
                self.cuts += 1
                return
            writer.write(chunk)
            await writer.drain()

    async def _wait_until_closing(self) -> None:
        await self._closing.wait()

    async def drop_all(self) -> None:
        """Cut every connection and wait until all are closed. New connections are accepted."""
        self._closing.set()
        if self._open:
            self._none_open.clear()
            await self._none_open.wait()
        self._closing = asyncio.Event()


@asynccontextmanager
async def proxied(dsn: str) -> AsyncIterator[Proxy]:
    """Yield a proxy for the Postgres of `dsn`. The proxy's `dsn` leads through it."""
    host = parse_qs(urlsplit(dsn).query)["host"][0]
    with tempfile.TemporaryDirectory(prefix="pos-proxy-") as directory:
        own_dsn = dsn.replace(quote(host, safe=""), quote(directory, safe=""))
        proxy = Proxy(own_dsn, str(Path(host) / ".s.PGSQL.5432"))
        server = await asyncio.start_unix_server(proxy.handle, str(Path(directory) / ".s.PGSQL.5432"))
        async with server:
            yield proxy
            await proxy.drop_all()
