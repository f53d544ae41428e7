"""Clients that write down all that they are told, and nothing else: tills, wallets and back offices of two kinds.

`PlainTill` and `PlainWallet` are websockets and json. `ClientTill` and `ClientWallet` look the same and use pos_client.
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


class Notebook:
    """What one client was told, in order."""

    def __init__(self) -> None:
        self.lines: list[Message] = []
        self._wanted: list[tuple[Callable[[Message], bool], asyncio.Future[Message]]] = []

    def write(self, message: Message) -> Message:
        self.lines.append(message)
        for found, waiting in self._wanted:
            if not waiting.done() and found(message):
                waiting.set_result(message)
        return message

    async def until(self, found: Callable[[Message], bool]) -> Message:
        """The first message that `found` holds for, of those that came and those that will."""
        for message in self.lines:
            if found(message):
                return message
        entry = (found, asyncio.get_running_loop().create_future())
        self._wanted.append(entry)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await entry[1]
        finally:
            self._wanted.remove(entry)

    async def heard(self, payment_id: str, version: int) -> Message:
        """Wait for this version of a payment, or a later one."""
        return await self.until(
            lambda message: message.get("payment_id") == payment_id and message.get("version", 0) >= version
        )


class PlainDevice(Notebook):
    """A device on a WebSocket of its own, which can be cut and opened again, here or at another server."""

    def __init__(self, device: TestDevice) -> None:
        super().__init__()
        self.device = device
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    async def connect(self, url: str) -> None:
        """Open a connection, and ask for what was missed since the last word."""
        await self.leave()
        times = [line.get("decided_at_ms") or line.get("server_time_ms") for line in self.lines]
        since_ms = max((at for at in times if at is not None), default=None)
        self._socket = await self._stack.enter_async_context(raw_socket(url, self.device.device.kind))
        hello = await receive(self._socket)
        await self._socket.send(json.dumps(authenticate(self.device, hello["nonce"], since_ms=since_ms)))
        ready = self.write(await receive(self._socket))
        assert ready["type"] == "ready", ready
        assert ready["resumed"], "a day's gap is small enough to be replayed"
        self._reader = asyncio.create_task(self._read(self._socket))

    def cut(self) -> None:
        """Lose the connection without a word."""
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
        """Send a request and wait for its answer, which may be an error."""
        message_id = await self.send(message)
        return await self.until(lambda line: line.get("reply_to") == message_id)

    async def _read(self, socket: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            async for text in socket:
                self.write(json.loads(text))


class PlainTill(PlainDevice):
    async def scan(self, payment: Message) -> Message:
        """The first word on a payment: its result, or that it waits."""
        return await self.ask({"type": "payment.scan"} | payment)

    async def cancel(self, **which: str) -> Message:
        return await self.ask({"type": "payment.cancel"} | which)

    async def refund(self, wish: Message) -> Message:
        return await self.ask({"type": "refund.create"} | wish)


class PlainWallet(PlainDevice):
    @property
    def number(self) -> int:
        return self.device.device.number

    async def code(self) -> str:
        return self.device.code()

    async def set_pin(self, pin: str, request_id: str) -> None:
        changed = await self.ask({"type": "pin.set", "request_id": request_id, "new_pin": pin})
        assert changed["type"] == "pin.changed", changed

    async def confirm(self, asked: Message, pin: str) -> Message:
        which = {name: asked[name] for name in ("payment_id", "version")}
        return await self.ask({"type": "payment.confirm", "pin": pin} | which)

    async def reject(self, payment_id: str) -> Message:
        return await self.ask({"type": "payment.reject", "payment_id": payment_id})


def _as_message(said: Any) -> Message:
    message: Message = json.loads(encode(said))
    return message


class ClientTill(Notebook):
    """pos_client's till. It waits for payments by itself, so each scan is a task."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__()
        self.client = TerminalClient(credentials, backoff=Backoff(base_s=0.1, cap_s=1))
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Write down what comes by itself, for ever."""
        while True:
            self.write(_as_message(await self.client.result()))

    async def scan(self, payment: Message) -> Message:
        first: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._scan(payment, first))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await first

    async def _scan(self, payment: Message, first: asyncio.Future[Message]) -> None:
        def told(message: Message) -> None:
            self.write(message)
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
                on_pending=lambda pending: told(_as_message(pending)),
            )
        except RequestUnanswered:
            return  # the payment was canceled meanwhile: the answer to that says so
        except RequestRefused as refused:
            told({"type": "error", "code": refused.code})
            return
        told(_as_message(result))

    async def cancel(self, **which: str) -> Message:
        try:
            if "payment_id" in which:
                return self.write(_as_message(await self.client.cancel(payment_id=UUID(which["payment_id"]))))
            return self.write(_as_message(await self.client.cancel(reference=which["reference"])))
        except RequestRefused as refused:
            return self.write({"type": "error", "code": refused.code})

    async def refund(self, wish: Message) -> Message:
        try:
            result = await self.client.refund(UUID(wish["payment_id"]), wish["amount_minor"], UUID(wish["refund_id"]))
        except RequestRefused as refused:
            return self.write({"type": "error", "code": refused.code})
        return self.write(_as_message(result))


class ClientWallet(Notebook):
    """pos_client's wallet."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__()
        self.client = WalletClient(credentials, backoff=Backoff(base_s=0.1, cap_s=1))

    @property
    def number(self) -> int:
        return self.client.credentials.number

    async def listen(self) -> None:
        """Write down what comes by itself, for ever."""
        while True:
            self.write(_as_message(await self.client.next_notice()))

    async def code(self) -> str:
        return (await self.client.next_code()).digits

    async def set_pin(self, pin: str, request_id: str) -> None:
        await self.client.set_pin(pin)

    async def confirm(self, asked: Message, pin: str) -> Message:
        answer = await self.client.confirm(UUID(asked["payment_id"]), asked["version"], pin)
        return self.write(_as_message(answer))

    async def reject(self, payment_id: str) -> Message:
        return self.write(_as_message(await self.client.reject(UUID(payment_id))))


def unix_ms(said: str) -> int:
    """A time of the API."""
    return round(datetime.fromisoformat(said).timestamp() * 1000)


class BackOffice(Notebook):
    """A merchant's back office on the API, and the issuer's desk that tops wallets up in its name.

    Answers are written down in the form of a till's messages.
    """

    def __init__(self, key: str, issuer_key: str, merchant_id: int, url: str) -> None:
        super().__init__()
        self._merchant_id = merchant_id
        self._http, self._issuer = (
            httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {each}"}, timeout=ANSWER_TIMEOUT_S)
            for each in (key, issuer_key)
        )

    async def cash(self, path: str, wish_id: str, wallet_number: int, amount_minor: int) -> Message:
        """`path` is top-ups or withdrawals, `wish_id` names the request. A refusal is an `error` with its code."""
        body = {"wallet_number": wallet_number, "merchant_id": self._merchant_id, "amount_minor": amount_minor}
        response = await self._issuer.post(f"/v1/{path}", json=body, headers={"Idempotency-Key": wish_id})
        said = response.json()
        if response.is_error:
            return self.write({"type": "error", "code": said["code"]})
        return self.write({"type": "payment.result", "decided_at_ms": unix_ms(said["decided_at"])} | said)

    async def cancel(self, payment_id: str) -> Message:
        """Take a payment back. A refusal is an `error` with its code."""
        response = await self._http.post(f"/v1/payments/{payment_id}/cancel")
        said = response.json()
        if response.is_error:
            return self.write({"type": "error", "code": said["code"]})
        return self.write({"type": "payment.result", "decided_at_ms": unix_ms(said["changed_at"])} | said)

    async def refund(self, wish: Message) -> Message:
        """Give some of a payment back; `refund_id` of the wish names the request, not the refund."""
        path = f"/v1/payments/{wish['payment_id']}"
        body, once = {"amount_minor": wish["amount_minor"]}, {"Idempotency-Key": wish["refund_id"]}
        response = await self._http.post(f"{path}/refunds", json=body, headers=once)
        said = response.json()
        if response.is_error:
            return self.write({"type": "error", "code": said["code"]})
        back = {"refunded_minor": (await self._http.get(path)).json()["refunded_minor"]}
        return self.write({"type": "refund.result", "decided_at_ms": unix_ms(said["created_at"])} | back | said)

    async def close(self) -> None:
        await self._http.aclose()
        await self._issuer.aclose()


Till = PlainTill | ClientTill
Wallet = PlainWallet | ClientWallet
