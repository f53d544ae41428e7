"""A device on a WebSocket that can have many requests open at once and receives notices meanwhile."""

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


class ConcurrentDevice:
    """Matches answers to requests by `reply_to`, and keeps other messages by type and payment."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[str, asyncio.Future[Message]] = {}
        self._notices: dict[tuple[str, str], asyncio.Future[Message]] = {}

    async def ask(self, message: Message) -> Message:
        """Send a request with a new message_id and return its answer. Raises TimeoutError."""
        message_id = f"m{next(self._numbers)}"
        answer = self._answers[message_id] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps(message | {"message_id": message_id}))
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await answer

    async def notice(self, message_type: str, payment_id: str) -> Message:
        """Wait for the first unsolicited message of this type about a payment. Raises TimeoutError."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await self._notice(message_type, payment_id)

    def _notice(self, message_type: str, payment_id: str) -> asyncio.Future[Message]:
        return self._notices.setdefault((message_type, payment_id), asyncio.get_running_loop().create_future())

    async def receive(self) -> None:
        """Receive messages until the connection closes."""
        try:
            async for text in self._socket:
                message = json.loads(text)
                answer = self._answers.pop(message.get("reply_to") or "", None)
                if answer is not None:
                    answer.set_result(message)
                elif "payment_id" in message:
                    notice = self._notice(message["type"], message["payment_id"])
                    if not notice.done():
                        notice.set_result(message)
        except ConnectionClosed:
            pass


@asynccontextmanager
async def concurrent_device(url: str, device: TestDevice) -> AsyncIterator[ConcurrentDevice]:
    """Connect and authenticate a device; it receives until the block ends."""
    async with logged_in(url, device) as socket:
        connected = ConcurrentDevice(socket)
        receiving = asyncio.create_task(connected.receive())
        try:
            yield connected
        finally:
            receiving.cancel()
            await asyncio.wait([receiving])
