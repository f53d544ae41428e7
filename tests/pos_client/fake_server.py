"""A scripted server: one script per connection; the last script serves all later connections.

A script is `async def script(peer: Peer) -> None`. When it returns, the connection stays open until the client closes
it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from pos_client.device.credentials import Credentials
from pos_server.core.credentials.device_keys import DeviceKind, authentication_mac
from pos_server.core.protocol.server_messages import SUBPROTOCOL

NONCE = "ab" * 32
DEVICE_KEY = bytes(range(32))
PAID = {
    "type": "payment.result",
    "reply_to": None,
    "version": 1,
    "reference": "order-1",
    "amount_minor": 1250,
    "currency": "EUR",
    "status": "approved",
    "decline_code": None,
    "retryable": False,
    "next_step": None,
    "text": "Paid 12.50 EUR.",
    "paid_by": None,
    "refunded_minor": 0,
    "decided_at_ms": 1_700_000_000_000,
}
BOUGHT = {
    "type": "payment.result",
    "reply_to": None,
    "payment_id": "01890000-0000-7000-8000-000000000001",
    "version": 1,
    "merchant_name": "Canteen",
    "store_name": "North",
    "amount_minor": 320,
    "currency": "EUR",
    "status": "approved",
    "decline_code": None,
    "text": "You paid 3.20 EUR to Canteen.",
    "refunded_minor": 0,
    "balance_minor": 1680,
    "decided_at_ms": 1_700_000_000_000,
}
CONFIRM = {
    "type": "payment.confirmation_required",
    "reply_to": None,
    "payment_id": "01890000-0000-7000-8000-000000000001",
    "version": 1,
    "merchant_name": "Canteen",
    "store_name": "North",
    "amount_minor": 8000,
    "currency": "EUR",
    "expires_at_ms": 1_700_000_060_000,
    "pin_tries_left": 3,
    "text": "Pay 80.00 EUR to Canteen? Enter your PIN.",
    "decided_at_ms": 1_700_000_000_000,
}
PENDING = {
    "type": "payment.pending",
    "reply_to": None,
    "version": 1,
    "reference": "order-1",
    "amount_minor": 1250,
    "currency": "EUR",
    "expires_at_ms": 1_700_000_060_000,
    "wallet_online": True,
    "text": "Waiting for the customer's PIN.",
    "decided_at_ms": 1_700_000_000_000,
}
REFUNDED = {
    "type": "refund.result",
    "reply_to": None,
    "version": 2,
    "reference": "order-1",
    "amount_minor": 300,
    "currency": "EUR",
    "refunded_minor": 300,
    "refundable_minor": 950,
    "text": "Refunded 3.00 EUR.",
    "decided_at_ms": 1_700_000_000_000,
}
CANCELED = {**PAID, "version": 2, "status": "canceled", "next_step": "new_order", "text": "Canceled."}
DECLINED = {**PAID, "status": "declined", "decline_code": "insufficient_funds", "text": "Not enough balance."}


@dataclass
class Peer:
    """The server's side of one connection."""

    socket: ServerConnection
    server_time_ms: int

    async def send(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self.socket.recv())
        return message

    async def greet(self, *, heartbeat_s: int = 20) -> dict[str, Any]:
        """Send hello and return the client's authenticate."""
        await self.send(
            type="hello",
            protocol=SUBPROTOCOL,
            nonce=NONCE,
            server_time_ms=self.server_time_ms,
            heartbeat_s=heartbeat_s,
            authenticate_within_s=5,
            frame_bytes_max=4096,
        )
        return await self.receive()

    async def welcome(self, *, resumed: bool = True, heartbeat_s: int = 20) -> dict[str, Any]:
        """Send hello, check the MAC of the client's authenticate, send ready, and return the authenticate.

        If the client asks for a replay and `resumed` is true, it is empty.
        """
        authenticate = await self.greet(heartbeat_s=heartbeat_s)
        mac = authentication_mac(DEVICE_KEY, bytes.fromhex(NONCE), authenticate["id"]).hex()
        assert authenticate["mac"] == mac
        ready = {"type": "ready", "reply_to": authenticate["message_id"], "server_time_ms": self.server_time_ms}
        ready["resumed"] = resumed
        if self.socket.request is not None and self.socket.request.path == "/v1/terminal":
            ready |= {"terminal_number": authenticate["id"], "merchant_name": "Canteen", "store_name": "North"}
            await self.send(**ready, currency="EUR")
        else:
            await self.send(
                **ready,
                wallet_number=authenticate["id"],
                slot=authenticate["slot"],
                currency="EUR",
                balance_minor=2000,
                pin_set=True,
                status="active",
            )
        if resumed and authenticate["since_ms"] is not None:
            await self.replayed(authenticate["message_id"], self.server_time_ms)
        return authenticate

    async def replayed(self, reply_to: str, since_ms: int, next_cursor: str | None = None) -> None:
        await self.send(type="replayed", reply_to=reply_to, since_ms=since_ms, next_cursor=next_cursor)

    async def answer(self, request: dict[str, Any], result: dict[str, Any] = PAID) -> None:
        ids = {name: request[name] for name in ("payment_id", "refund_id") if request.get(name)}
        await self.send(**{**result, **ids, "reply_to": request["message_id"]})

    async def refuse(self, scan: dict[str, Any], code: str, *, retryable: bool, **more: Any) -> None:
        text = f"because of {code}"
        await self.send(type="error", reply_to=scan["message_id"], code=code, message=text, retryable=retryable, **more)

    def drop(self) -> None:
        """Abort the connection without a close frame."""
        self.socket.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class FakeServer:
    url: str = ""
    connection_count: int = 0
    errors: list[Exception] = field(default_factory=list)

    def terminal(self) -> Credentials:
        return credentials(DeviceKind.TERMINAL, self.url)

    def wallet(self) -> Credentials:
        return credentials(DeviceKind.WALLET, self.url)


@asynccontextmanager
async def fake_server(*scripts: Script, server_time_ms: int = 1_700_000_000_000) -> AsyncIterator[FakeServer]:
    """Serve these scripts on a free port. Raises the first exception of a script at the end."""
    server = FakeServer()

    async def handle(socket: ServerConnection) -> None:
        script = scripts[min(server.connection_count, len(scripts) - 1)]
        server.connection_count += 1
        try:
            await script(Peer(socket, server_time_ms))
        except ConnectionClosed:
            pass
        except Exception as error:
            server.errors.append(error)
        await socket.wait_closed()

    async with serve(handle, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL], close_timeout=1) as listening:  # type: ignore[list-item]
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield server
    if server.errors:
        raise server.errors[0]


@contextmanager
def fake_server_in_thread(*scripts: Script, server_time_ms: int = 1_700_000_000_000) -> Iterator[FakeServer]:
    """Run `fake_server` in a thread, for tests of blocking programs."""
    with asyncio.Runner() as runner, ThreadPoolExecutor(1) as thread:
        serving = fake_server(*scripts, server_time_ms=server_time_ms)
        server = thread.submit(runner.run, serving.__aenter__()).result()
        running = thread.submit(runner.get_loop().run_forever)
        try:
            yield server
        finally:
            runner.get_loop().call_soon_threadsafe(runner.get_loop().stop)
            running.result()
            thread.submit(runner.run, serving.__aexit__(None, None, None)).result()


def credentials(kind: DeviceKind, url: str = "http://127.0.0.1:9") -> Credentials:
    return Credentials(
        server=url,
        kind=kind,
        number=7 if kind is DeviceKind.TERMINAL else 1_000_000_001,
        slot=0 if kind is DeviceKind.TERMINAL else 3,
        kid="k1",
        device_key=DEVICE_KEY,
        currency="EUR",
        name="A device",
    )
