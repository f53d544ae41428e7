"""A proxy in front of a Unix socket that cuts connections on purpose, or drops settings as a pooler does."""

import asyncio
import struct
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

Rule = Callable[[bytes], bool]


class Proxy:
    """Forwards bytes both ways. `cut_requests` and `cut_answers` get each chunk; True cuts the connection.

    New sessions do not get the settings in `dropped`, like those of a pooler with `ignore_startup_parameters`.
    """

    def __init__(self, dsn: str, target: str) -> None:
        self.dsn = dsn
        self.cut_requests: Rule = lambda chunk: False
        self.cut_answers: Rule = lambda chunk: False
        self.away = False
        self.dropped: set[str] = set()
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
            if self.dropped:
                upstream_writer.write(await self._startup_message(reader))
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

    async def _startup_message(self, reader: asyncio.StreamReader) -> bytes:
        """Read the StartupMessage (PostgreSQL manual, "Message Formats") and return it without `dropped`."""
        (length,) = struct.unpack("!I", await reader.readexactly(4))
        body = await reader.readexactly(length - 4)
        words = body[4:].split(b"\0")
        pairs = zip(words[::2], words[1::2], strict=False)
        kept = b"".join(
            name + b"\0" + value + b"\0" for name, value in pairs if name and name.decode() not in self.dropped
        )
        return struct.pack("!I", len(kept) + 9) + body[:4] + kept + b"\0"

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
