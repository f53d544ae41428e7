"""A device on the wire that has many requests open at once, and hears what it did not ask for."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.support import ANSWER_TIMEOUT_S, TestDevice, logged_in

Message = dict[str, Any]


class Talker:
    """Answers are matched by `reply_to`; what else is told is kept by type and payment."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._open: dict[str, asyncio.Future[Message]] = {}
        self._told: dict[tuple[str, str], asyncio.Future[Message]] = {}

    async def ask(self, message: Message) -> Message:
        """Send a request under a message_id of its own; returns its answer."""
        message_id = f"m{next(self._numbers)}"
        answer = self._open[message_id] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps(message | {"message_id": message_id}))
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await answer

    async def told(self, kind: str, payment_id: str) -> Message:
        """Wait for the first message of this type about a payment that was not asked for."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await self._news(kind, payment_id)

    def _news(self, kind: str, payment_id: str) -> asyncio.Future[Message]:
        return self._told.setdefault((kind, payment_id), asyncio.get_running_loop().create_future())

    async def listen(self) -> None:
        try:
            async for text in self._socket:
                message = json.loads(text)
                answer = self._open.pop(message.get("reply_to") or "", None)
                if answer is not None:
                    answer.set_result(message)
                elif "payment_id" in message:
                    news = self._news(message["type"], message["payment_id"])
                    if not news.done():
                        news.set_result(message)
        except ConnectionClosed:
            pass


@asynccontextmanager
async def talking(url: str, device: TestDevice) -> AsyncIterator[Talker]:
    """An authenticated device that listens."""
    async with logged_in(url, device) as socket:
        talker = Talker(socket)
        listening = asyncio.create_task(talker.listen())
        try:
            yield talker
        finally:
            listening.cancel()
            await asyncio.wait([listening])
