"""A bounded queue of unread results, closed by the ConnectionStopped that ended the session."""

import asyncio
import logging
from typing import Generic, TypeVar

from ..errors import ConnectionStopped

T = TypeVar("T")
log = logging.getLogger("pos_client")


class Inbox(Generic[T]):
    """A queue of up to `items_max` items. When it is full, the oldest item is dropped."""

    def __init__(self, items_max: int) -> None:
        self._queue: asyncio.Queue[T | ConnectionStopped] = asyncio.Queue(items_max)
        self._stopped: ConnectionStopped | None = None

    def __len__(self) -> int:
        return self._queue.qsize() - (self._stopped is not None)

    def put(self, item: T | ConnectionStopped) -> None:
        """Add an item, or close the queue with a ConnectionStopped."""
        if isinstance(item, ConnectionStopped):
            if self._stopped is not None:
                return
            self._stopped = item
        if self._queue.full():
            self._queue.get_nowait()
            log.warning("the queue of %d unread results is full: the oldest was dropped", self._queue.maxsize)
        self._queue.put_nowait(item)

    async def get(self) -> T:
        """Wait for the next item. Raises ConnectionStopped when the queue is closed and empty."""
        item = await self._queue.get()
        if isinstance(item, ConnectionStopped):
            self._queue.put_nowait(item)  # keep it for the next caller
            raise item
        return item
