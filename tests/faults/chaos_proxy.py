"""A TCP proxy that cuts connections at random: before, within or after a chunk."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random


class ChaosProxy:
    """Forwards to `port` on loopback. While `on`, each chunk in either direction can be the connection's last."""

    def __init__(self, port: int, random: Random, cut_share: float) -> None:
        self.url = ""
        self.on = True
        self.cuts = {"before": 0, "within": 0, "after": 0}
        self._port = port
        self._random = random
        self._cut_share = cut_share

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        pumps = [
            asyncio.create_task(self._pump(reader, upstream_writer)),
            asyncio.create_task(self._pump(upstream_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            writer.transport.abort()
            upstream_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            how = self._cut()
            if how == "within":
                chunk = chunk[: len(chunk) // 2]
            if how != "before":
                writer.write(chunk)
                await writer.drain()
            if how is not None:
                if how != "before":
                    # Pass the written data to the kernel, because abort discards unsent data.
                    writer.write_eof()
                return

    def _cut(self) -> str | None:
        if not self.on or self._random.random() >= self._cut_share:
            return None
        how = self._random.choice(list(self.cuts))
        self.cuts[how] += 1
        return how


@asynccontextmanager
async def chaos_proxy(port: int, random: Random, *, cut_share: float) -> AsyncIterator[ChaosProxy]:
    """Yield a proxy in front of `port`. Clients connect to its `url`."""
    proxy = ChaosProxy(port, random, cut_share)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    async with server:
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield proxy
