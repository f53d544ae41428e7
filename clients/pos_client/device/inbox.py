"""A bounded queue of unread results, closed by the ConnectionStopped that ended the session.

The reader acknowledges an item by asking for the next one, so that an item is not lost if the reader dies in between.
"""

import asyncio
import logging
from collections import deque
from typing import Generic, TypeVar

from ..errors import ConnectionStopped

T = TypeVar("T")
log = logging.getLogger("pos_client")


class Inbox(Generic[T]):
    """A queue of up to `items_max` items. When it is full, it takes no further item."""

    def __init__(self, items_max: int) -> None:
        self._items_max = items_max
        self._items: deque[T] = deque()
        self._is_acknowledged = True
        self._stopped: ConnectionStopped | None = None
        self._readable = asyncio.Event()
        self._has_room = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_full(self) -> bool:
        """True if there is no room for another item."""
        return len(self._items) >= self._items_max

    @property
    def is_done(self) -> bool:
        """True if every item was read and acknowledged."""
        return not self._items and self._is_acknowledged

    def acknowledge(self) -> None:
        """Record that the reader has processed the item that it got last."""
        self._is_acknowledged = True

    def put(self, item: T) -> None:
        """Add an item, or drop it with a warning if there is no room."""
        if self.is_full:
            log.warning("the queue of %d unread results is full: one was dropped", self._items_max)
            return
        self._items.append(item)
        self._readable.set()

    def close(self, stopped: ConnectionStopped) -> None:
        """Close the queue, after its items. The first call counts."""
        self._stopped = self._stopped or stopped
        self._readable.set()

    async def get(self) -> T:
        """Wait for the next item; the one before is acknowledged. Raises ConnectionStopped if closed and empty."""
        self.acknowledge()
        while not self._items:
            if self._stopped is not None:
                raise self._stopped
            self._readable.clear()
            await self._readable.wait()
        item = self._items.popleft()
        self._has_room.set()
        self._is_acknowledged = False
        return item

    async def room(self, items: int) -> None:
        """Wait until there is room for this number of items."""
        while len(self._items) + items > self._items_max:
            self._has_room.clear()
            await self._has_room.wait()
