"""Tills, wallets and back offices that record every message they receive.

`PlainTill` and `PlainWallet` use websockets and json only. `ClientTill` and `ClientWallet` have the same methods and
use pos_client.
"""

import asyncio
import itertools
import json
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from pos_client import Backoff, Credentials, RequestRefused, RequestUnanswered, TerminalClient, WalletClient
from pos_server.core.protocol.codec import encode
from tests.end_to_end.bookkeeper import Message
from tests.support import ANSWER_TIMEOUT_S, TestDevice, authenticate, raw_socket, receive

_numbers = itertools.count(1)


class Recorder:
    """The messages that one client received, in order."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._waiting: list[tuple[Callable[[Message], bool], asyncio.Future[Message]]] = []

    def record(self, message: Message) -> Message:
        self.messages.append(message)
        for matches, waiting in self._waiting:
            if not waiting.done() and matches(message):
                waiting.set_result(message)
        return message

    async def wait_for(self, matches: Callable[[Message], bool]) -> Message:
        """Return the first message, received or future, that `matches`. Raises TimeoutError."""
        for message in self.messages:
            if matches(message):
                return message
        entry = (matches, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await entry[1]
        finally:
            self._waiting.remove(entry)

    async def wait_for_version(self, payment_id: str, version: int) -> Message:
        """Wait for this or a later version of a payment. Raises TimeoutError."""
        return await self.wait_for(
            lambda message: message.get("payment_id") == payment_id and message.get("version", 0) >= version
        )


class PlainDevice(Recorder):
    """A device on a WebSocket that can be cut and opened again, at the same or another server."""

    def __init__(self, device: TestDevice) -> None:
        super().__init__()
        self.device = device
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    async def connect(self, url: str) -> None:
        """Open a connection and resume from the last message."""
        await self.leave()
        times = [message.get("decided_at_ms") or message.get("server_time_ms") for message in self.messages]
        since_ms = max((at for at in times if at is not None), default=None)
        self._socket = await self._stack.enter_async_context(raw_socket(url, self.device.device.kind))
        hello = await receive(self._socket)
        await self._socket.send(json.dumps(authenticate(self.device, hello["nonce"], since_ms=since_ms)))
        ready = self.record(await receive(self._socket))
        assert ready["type"] == "ready", ready
        assert ready["resumed"], "the gap is too long for a replay"
        self._reader = asyncio.create_task(self._read(self._socket))

    def cut(self) -> None:
        """Abort the connection without a close frame."""
        assert self._socket is not None
        self._socket.transport.abort()

    async def leave(self) -> None:
        await self._stack.aclose()
        if self._reader is not None:
            await self._reader

    async def send(self, message: Message) -> str:
        assert self._socket is not None
        message_id = f"n{next(_numbers)}"
        await self._socket.send(json.dumps(message | {"message_id": message_id}))
        return message_id

    async def ask(self, message: Message) -> Message:
        """Send a request and return its answer, which can be an error."""
        message_id = await self.send(message)
        return await self.wait_for(lambda answer: answer.get("reply_to") == message_id)

    async def _read(self, socket: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            async for text in socket:
                self.record(json.loads(text))


class PlainTill(PlainDevice):
    async def scan(self, payment: Message) -> Message:
        """Send a scan and return the first answer: a result, or that the payment is pending."""
        return await self.ask({"type": "payment.scan"} | payment)

    async def cancel(self, **fields: str) -> Message:
        return await self.ask({"type": "payment.cancel"} | fields)

    async def refund(self, request: Message) -> Message:
        return await self.ask({"type": "refund.create"} | request)


class PlainWallet(PlainDevice):
    @property
    def number(self) -> int:
        return self.device.device.number

    async def code(self) -> str:
        return self.device.code()

    async def set_pin(self, pin: str, request_id: str) -> None:
        changed = await self.ask({"type": "pin.set", "request_id": request_id, "new_pin": pin})
        assert changed["type"] == "pin.changed", changed

    async def confirm(self, request: Message, pin: str) -> Message:
        fields = {name: request[name] for name in ("payment_id", "merchant_id", "version")}
        return await self.ask({"type": "payment.confirm", "pin": pin} | fields)

    async def reject(self, payment_id: str) -> Message:
        return await self.ask({"type": "payment.reject", "payment_id": payment_id})


def _as_message(struct: Any) -> Message:
    message: Message = json.loads(encode(struct))
    return message


class ClientTill(Recorder):
    """A till by pos_client. Its `scan` waits for the result, so each scan is a task."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__()
        self.client = TerminalClient(credentials, backoff=Backoff(base_s=0.1, cap_s=1))
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Record unsolicited results until canceled."""
        while True:
            self.record(_as_message(await self.client.result()))

    async def scan(self, payment: Message) -> Message:
        first: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._scan(payment, first))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await first

    async def _scan(self, payment: Message, first: asyncio.Future[Message]) -> None:
        def record_first(message: Message) -> None:
            self.record(message)
            if not first.done():
                first.set_result(message)

        try:
            result = await self.client.scan(
                code=payment["code"],
                amount_minor=payment["amount_minor"],
                reference=payment["reference"],
                payment_id=UUID(payment["payment_id"]),
                typed=payment["entry"] == "typed",
                purpose=payment["purpose"],
                on_pending=lambda pending: record_first(_as_message(pending)),
            )
        except RequestUnanswered:
            return  # the payment was canceled, and the answer to the cancel is recorded
        except RequestRefused as error:
            record_first({"type": "error", "code": error.code})
            return
        record_first(_as_message(result))

    async def cancel(self, **fields: str) -> Message:
        try:
            if "payment_id" in fields:
                return self.record(_as_message(await self.client.cancel(payment_id=UUID(fields["payment_id"]))))
            return self.record(_as_message(await self.client.cancel(reference=fields["reference"])))
        except RequestRefused as error:
            return self.record({"type": "error", "code": error.code})

    async def refund(self, request: Message) -> Message:
        try:
            result = await self.client.refund(
                UUID(request["payment_id"]), request["amount_minor"], UUID(request["refund_id"])
            )
        except RequestRefused as error:
            return self.record({"type": "error", "code": error.code})
        return self.record(_as_message(result))


class ClientWallet(Recorder):
    """A wallet by pos_client."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__()
        self.client = WalletClient(credentials, backoff=Backoff(base_s=0.1, cap_s=1))

    @property
    def number(self) -> int:
        return self.client.credentials.number

    async def listen(self) -> None:
        """Record notices until canceled."""
        while True:
            self.record(_as_message(await self.client.next_notice()))

    async def code(self) -> str:
        return (await self.client.next_code()).digits

    async def set_pin(self, pin: str, request_id: str) -> None:
        await self.client.set_pin(pin)

    async def confirm(self, request: Message, pin: str) -> Message:
        answer = await self.client.confirm(UUID(request["payment_id"]), request["version"], pin)
        return self.record(_as_message(answer))

    async def reject(self, payment_id: str) -> Message:
        return self.record(_as_message(await self.client.reject(UUID(payment_id))))


def unix_ms(text: str) -> int:
    """Return a time of the REST API in Unix milliseconds."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


class BackOffice(Recorder):
    """A merchant's back office on the REST API, with an issuer that moves cash for this merchant.

    Responses are recorded in the form of a till's messages, errors as `error` with a code.
    """

    def __init__(self, key: str, issuer_key: str, merchant_id: int, url: str) -> None:
        super().__init__()
        self._merchant_id = merchant_id
        self._http, self._issuer = (
            httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {each}"}, timeout=ANSWER_TIMEOUT_S)
            for each in (key, issuer_key)
        )

    async def cash(self, path: str, request_id: str, wallet_number: int, amount_minor: int) -> Message:
        """Move cash. `path` is top-ups or withdrawals; `request_id` is the idempotency key."""
        body = {"wallet_number": wallet_number, "merchant_id": self._merchant_id, "amount_minor": amount_minor}
        response = await self._issuer.post(f"/v1/{path}", json=body, headers={"Idempotency-Key": request_id})
        answer = response.json()
        if response.is_error:
            return self.record({"type": "error", "code": answer["code"]})
        return self.record({"type": "payment.result", "decided_at_ms": unix_ms(answer["decided_at"])} | answer)

    async def cancel(self, payment_id: str) -> Message:
        """Cancel a payment."""
        response = await self._http.post(f"/v1/payments/{payment_id}/cancel")
        answer = response.json()
        if response.is_error:
            return self.record({"type": "error", "code": answer["code"]})
        return self.record({"type": "payment.result", "decided_at_ms": unix_ms(answer["changed_at"])} | answer)

    async def refund(self, request: Message) -> Message:
        """Refund some of a payment. The idempotency key is `refund_id` of the request."""
        path = f"/v1/payments/{request['payment_id']}"
        body, once = {"amount_minor": request["amount_minor"]}, {"Idempotency-Key": request["refund_id"]}
        response = await self._http.post(f"{path}/refunds", json=body, headers=once)
        answer = response.json()
        if response.is_error:
            return self.record({"type": "error", "code": answer["code"]})
        total = {"refunded_minor": (await self._http.get(path)).json()["refunded_minor"]}
        return self.record({"type": "refund.result", "decided_at_ms": unix_ms(answer["created_at"])} | total | answer)

    async def close(self) -> None:
        await self._http.aclose()
        await self._issuer.aclose()


Till = PlainTill | ClientTill
Wallet = PlainWallet | ClientWallet
