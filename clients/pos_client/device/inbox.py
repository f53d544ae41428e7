"""Results that wait to be read: a bounded queue that ends with the reason why no more will come."""

import asyncio
import logging
from typing import Generic, TypeVar

from ..errors import ConnectionStopped

T = TypeVar("T")
log = logging.getLogger("pos_client")


class Inbox(Generic[T]):
    """Holds up to `items_max`; the oldest is dropped for the newest."""

    def __init__(self, items_max: int) -> None:
        self._queue: asyncio.Queue[T | ConnectionStopped] = asyncio.Queue(items_max)
        self._stopped: ConnectionStopped | None = None

    def __len__(self) -> int:
        return self._queue.qsize() - (self._stopped is not None)

    def put(self, item: T | ConnectionStopped) -> None:
        """Add an item, or the last one: a ConnectionStopped."""
        if isinstance(item, ConnectionStopped):
            if self._stopped is not None:
                return
            self._stopped = item
        if self._queue.full():
            self._queue.get_nowait()
            log.warning("results are not read: the oldest of %d was dropped", self._queue.maxsize)
        self._queue.put_nowait(item)

    async def get(self) -> T:
        """Wait for the next item. Raises ConnectionStopped when there are no more."""
        item = await self._queue.get()
        if isinstance(item, ConnectionStopped):
            self._queue.put_nowait(item)  # the next caller hears it too
            raise item
        return item
