"""Sends connected devices the results that they may have missed while their server lost touch with another one."""

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
import structlog

from ..core.credentials.device_keys import DeviceKind
from ..core.errors import CloseCode
from ..core.protocol.codec import encode
from ..core.protocol.notices import Recipient
from ..delivery.connections import Connection, Connections
from ..ledger import history
from ..ledger.failures import DATABASE_ERRORS, Phase, report
from ..ledger.history import Cursor
from .device import DeviceEndpoint

log = structlog.get_logger(__name__)

# Devices that one query looks for.
_DEVICES_PER_QUERY = 1_000
# Pages that are read at a time: the pool has few connections, and devices sign in through it.
_READS_MAX = 2
# Time for a device to take a page.
_PAGE_WITHIN_S = 10.0
_RETRY_PAUSE_S = 1.0


class CatchUp:
    """Reads the rows of connected devices after a gap, in pages. `endpoints` has one endpoint per kind of device.

    `lag_ms` is the longest time from a decision to its notice at another server, plus the skew of clocks.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        connections: Connections,
        endpoints: Sequence[DeviceEndpoint[Any]],
        *,
        page_payments: int,
        lag_ms: int,
    ) -> None:
        self._pool = pool
        self._connections = connections
        self._endpoints = {endpoint.kind: endpoint for endpoint in endpoints}
        self._page_payments = page_payments
        self._lag_ms = lag_ms
        # The start of the gap (Unix ms) for each connection that waits, and the tasks of those that are served.
        self._since_ms: dict[Connection, int] = {}
        self._tasks: dict[Connection, asyncio.Task[None]] = {}
        self._reads = asyncio.Semaphore(_READS_MAX)
        self._wake = asyncio.Event()

    def request(self, since_ms: int, only: Recipient | None = None) -> None:
        """Deliver what has changed since `since_ms` to all connected devices, or to those of one recipient."""
        for connection in self._connections:
            device = connection.device
            if only is None or (device.kind, device.number) == (only.kind, only.number):
                self._request(connection, since_ms - self._lag_ms)

    def _request(self, connection: Connection, since_ms: int) -> None:
        self._since_ms[connection] = min(since_ms, self._since_ms.get(connection, since_ms))
        self._wake.set()

    async def run(self) -> None:
        """Serve requests until canceled. While the database is away, they wait, as they do after a failure."""
        if self._since_ms:
            self._wake.set()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                try:
                    await self._start_reading()
                except DATABASE_ERRORS as error:
                    report(error, Phase.READ, during="catching up")
                    self._wake.set()
                    await asyncio.sleep(_RETRY_PAUSE_S)
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def _start_reading(self) -> None:
        """Start a task for each waiting device that has changes, and forget the other devices."""
        for kind in self._endpoints:
            # A device that is being served waits for the end of its task, which wakes this one.
            waiting = [
                connection
                for connection in self._since_ms
                if connection.device.kind is kind and connection not in self._tasks
            ]
            for start in range(0, len(waiting), _DEVICES_PER_QUERY):
                await self._start_changed(kind, waiting[start : start + _DEVICES_PER_QUERY])

    async def _start_changed(self, kind: DeviceKind, waiting: Sequence[Connection]) -> None:
        since_ms = {connection: self._since_ms.pop(connection) for connection in waiting}
        try:
            numbers = [connection.device.number for connection in waiting]
            changed = await history.changed_since(self._pool, kind, numbers, min(since_ms.values()))
        except BaseException:  # a failure of any kind must not forget them
            for connection in waiting:
                self._request(connection, since_ms[connection])
            raise
        for connection in waiting:
            if connection.device.number in changed and not connection.is_closing:
                self._start(connection, since_ms[connection])

    def _start(self, connection: Connection, since_ms: int) -> None:
        task = self._tasks[connection] = asyncio.create_task(self._serve(connection, since_ms), name="catch-up")
        task.add_done_callback(lambda _: self._end(connection, task))

    def _end(self, connection: Connection, task: asyncio.Task[None]) -> None:
        del self._tasks[connection]
        if not task.cancelled() and (failure := task.exception()) is not None:
            log.error("catch_up_failed", exc_info=failure)
            connection.close(CloseCode.UNAVAILABLE, "server fault, come back")
        if self._since_ms:
            self._wake.set()

    async def _serve(self, connection: Connection, since_ms: int) -> None:
        """Deliver page after page, each once the device has taken the messages before it."""
        endpoint = self._endpoints[connection.device.kind]
        after = Cursor.before(since_ms)
        try:
            while not connection.is_closing:
                try:
                    async with asyncio.timeout(_PAGE_WITHIN_S):
                        await connection.drained()
                except TimeoutError:
                    connection.close(CloseCode.SLOW_CONSUMER, "too many messages unread")
                    return
                async with self._reads:
                    number = connection.device.number
                    page = await endpoint.missed(number, connection.language, after, self._page_payments)
                for message in page.messages:
                    connection.deliver(encode(message))
                if page.next_cursor is None:
                    return
                after = page.next_cursor
        except DATABASE_ERRORS as error:
            report(error, Phase.READ, during="catching up")
            try:
                await asyncio.sleep(_RETRY_PAUSE_S)
            finally:
                self._request(connection, after.changed_at_ms)
        except asyncio.CancelledError:
            # `run` has failed and will be started again.
            self._request(connection, after.changed_at_ms)
            raise
