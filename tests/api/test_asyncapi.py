"""The AsyncAPI document and a real server agree: every message that the server sends is described, and no more.

tests/core/protocol/test_asyncapi.py compares the document with the decoder of requests.
"""

import json
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from pos_server.api.asyncapi import MEDIA_TYPE, asyncapi_json
from pos_server.cli import operator_acts
from pos_server.core.credentials.api_keys import Role
from pos_server.core.credentials.device_keys import DeviceId, DeviceKind
from pos_server.core.protocol.server_messages import MESSAGES_TO, SUBPROTOCOL
from pos_server.server import RunningServer, serving
from tests.core.protocol.asyncapi_schemas import DOCUMENT, EXAMPLES, SCHEMAS, accepts, names, validator
from tests.end_to_end.server_process import pos_server
from tests.support import (
    KEYRING,
    Shop,
    TestDevice,
    activated,
    authenticate,
    http_client,
    new_id,
    receive,
    scan_message,
    settings,
)

FROM_SERVER = {message.__name__ for kind in DeviceKind for message in MESSAGES_TO[kind]}
# The names of the messages that may answer a request, by channel and the request's type.
REPLIES = {
    (channel["title"], SCHEMAS[request]["properties"]["type"]["const"]): names(operation["reply"]["messages"])
    for operation in DOCUMENT["operations"].values()
    if operation["action"] == "receive"
    for channel in DOCUMENT["channels"].values()
    if operation["channel"]["$ref"].endswith(channel["title"])
    for request in names(operation["messages"])
}


class Wire:
    """A device's WebSocket at the address in the document. Validates and keeps every frame of the server."""

    def __init__(self, socket: ClientConnection, channel: str, frames: list[tuple[str, dict[str, Any]]]) -> None:
        self._socket = socket
        self._channel = channel
        self._frames = frames

    async def receive(self) -> dict[str, Any]:
        frame = await receive(self._socket)
        self._frames.append((schema_of(self._channel, frame), frame))
        return frame

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        await self._socket.send(json.dumps(message))
        reply = await self.receive()
        name, _ = self._frames[-1]
        assert name in REPLIES.get((self._channel, message["type"]), ["Error"])
        return reply

    async def receive_all(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self.receive()

    async def log_in(self, device: TestDevice, **fields: Any) -> dict[str, Any]:
        hello = await self.receive()
        limits = json.loads(asyncapi_json(settings().wire_limits()))["x-limits"]
        for limit in ("frame_bytes_max", "heartbeat_s", "authenticate_within_s"):
            assert hello[limit] == limits[limit]
        return await self.ask(authenticate(device, hello["nonce"], **fields))


def schema_of(channel: str, frame: dict[str, Any]) -> str:
    """Return the name of the channel's one message with the frame's type, after validating the frame."""
    sent = [name for name in DOCUMENT["channels"][channel]["messages"] if name in FROM_SERVER]
    [name] = [name for name in sent if SCHEMAS[name]["properties"]["type"]["const"] == frame["type"]]
    validator(name).validate(frame)
    assert frame.keys() == SCHEMAS[name]["properties"].keys(), "the server sends a field that the document lacks"
    return name


PIN = "407186"


async def play(dsn: str, shop: Shop, second_phone: TestDevice, issuer_key: str) -> list[tuple[str, dict[str, Any]]]:
    """Play a short day that makes the server send every message, for most of its reasons."""
    frames: list[tuple[str, dict[str, Any]]] = []
    till_device, wallet_device = shop.terminals[0], shop.wallets[0]
    async with AsyncExitStack() as sockets:

        async def dial(server: RunningServer, channel: str) -> Wire:
            address = server.url.replace("http", "ws", 1) + DOCUMENT["channels"][channel]["address"]
            dialed = connect(address, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None)
            return Wire(await sockets.enter_async_context(dialed), channel, frames)

        async with serving(settings(pin_free_minor_max=5_000), KEYRING, dsn) as server:
            till, wallet = await dial(server, "terminal"), await dial(server, "wallet")
            other = await dial(server, "wallet")
            await till.log_in(till_device)
            await wallet.log_in(wallet_device)
            await other.log_in(second_phone, language="zh-CN")
            order = scan_message(wallet_device.code())
            for scan in (
                order,
                scan_message(wallet_device.code(), reference=order["reference"]),
                scan_message(wallet_device.code(), amount_minor=1_000_000),
            ):
                await till.ask(scan)
                await wallet.receive()
                await other.receive()
            await till.ask(scan_message("not a code"))
            await misuse(till, wallet, order)
            await confirm(till, wallet, other, wallet_device)
            await cancel_and_refund(till, wallet, other, wallet_device, order)
            await freeze(server, issuer_key, wallet, other, wallet_device)
            # They reconnect, and receive what they missed and what still waits.
            till, wallet = await dial(server, "terminal"), await dial(server, "wallet")
            assert (await till.log_in(till_device, since_ms=1))["resumed"]
            await wallet.log_in(wallet_device, since_ms=1)
        for wire in (till, wallet, other):
            await wire.receive_all()
    assert [frame["reply_to"] for _, frame in frames if frame["type"] == "payment.pending"][-1] is None
    return frames


async def misuse(till: Wire, wallet: Wire, order: dict[str, Any]) -> None:
    for bad in (
        order | {"amount_minor": 2000},
        scan_message("", currency="USD"),
        scan_message("", amount_minor=0),
        {"type": "no.such.type", "message_id": "7"},
        {"type": "payment.scan"},
        {"type": "payment.query", "message_id": "7", "payment_id": str(new_id())},
        {"type": "payment.query", "message_id": "7"},
        EXAMPLES["RefundCreate"],
    ):
        assert (await till.ask(bad))["type"] == "error"
    for bad in (scan_message(""), EXAMPLES["PaymentReject"], EXAMPLES["PinSet"] | {"new_pin": "1111"}):
        assert (await wallet.ask(bad))["type"] == "error"


async def confirm(till: Wire, wallet: Wire, other: Wire, wallet_device: TestDevice) -> None:
    """Set the PIN. One payment gets a wrong PIN and then the right one; another is rejected."""
    assert (await wallet.ask(EXAMPLES["PinSet"] | {"new_pin": PIN}))["type"] == "pin.changed"
    assert (await other.receive())["reply_to"] is None
    large = scan_message(wallet_device.code(), amount_minor=6_000)
    assert (await till.ask(large))["type"] == "payment.pending"
    asked = await wallet.receive()
    assert asked == await other.receive() | {"text": asked["text"]}
    query = {"type": "payment.query", "message_id": "q", "reference": large["reference"]}
    assert (await till.ask(query))["type"] == "payment.pending"
    confirmation = EXAMPLES["PaymentConfirm"] | {"payment_id": large["payment_id"], "version": asked["version"]}
    again = await wallet.ask(confirmation | {"pin": "902531"})
    assert (again["type"], again["pin_tries_left"]) == ("payment.confirmation_required", asked["pin_tries_left"] - 1)
    await other.receive()
    paid = await wallet.ask(confirmation | {"version": again["version"], "pin": PIN})
    assert (paid["status"], paid["reply_to"]) == ("approved", confirmation["message_id"])
    for wire in (till, other):
        assert (await wire.receive())["reply_to"] is None
    typed = scan_message(wallet_device.code(), amount_minor=500, entry="typed")
    assert (await till.ask(typed))["type"] == "payment.pending"
    await wallet.receive()
    await other.receive()
    rejection = EXAMPLES["PaymentReject"] | {"payment_id": typed["payment_id"]}
    assert (await wallet.ask(rejection))["decline_code"] == "customer_rejected"
    for wire in (till, other):
        await wire.receive()


async def cancel_and_refund(
    till: Wire, wallet: Wire, other: Wire, wallet_device: TestDevice, order: dict[str, Any]
) -> None:
    """Refund some of an order, cancel a paid one and one that never came, and leave one pending."""
    refund = EXAMPLES["RefundCreate"] | {"payment_id": order["payment_id"], "amount_minor": 250}
    assert (await till.ask(refund))["refundable_minor"] == 750
    cancel = EXAMPLES["PaymentCancel"]
    assert (await till.ask(cancel | {"payment_id": order["payment_id"]}))["code"] == "already_refunded"
    unseen = await till.ask(cancel | {"payment_id": str(new_id())})
    assert (unseen["status"], unseen["amount_minor"], unseen["reference"]) == ("canceled", None, None)
    small = scan_message(wallet_device.code())
    await till.ask(small)
    assert (await till.ask(cancel | {"payment_id": small["payment_id"]}))["status"] == "canceled"
    assert (await till.ask(scan_message(wallet_device.code(), entry="typed")))["type"] == "payment.pending"
    for wire in (wallet, other):
        assert [(await wire.receive())["type"] for _ in range(4)] == [
            "refund.result",
            "payment.result",
            "payment.result",
            "payment.confirmation_required",
        ]
    shift = {"shift_id": str(new_id())}
    assert (await till.ask(EXAMPLES["ShiftOpen"] | shift))["report"] == "X"
    assert (await till.ask(EXAMPLES["ShiftQuery"] | shift))["report"] == "X"
    assert (await till.ask(EXAMPLES["ShiftClose"] | shift))["report"] == "Z"
    assert len((await till.ask(EXAMPLES["PaymentsRecent"]))["payments"]) == EXAMPLES["PaymentsRecent"]["limit"]
    page = await wallet.ask(EXAMPLES["History"] | {"limit": 2})
    assert len(page["payments"]) == 2
    assert (await wallet.ask(EXAMPLES["History"] | {"cursor": page["next_cursor"]}))["next_cursor"] is None


async def freeze(server: RunningServer, issuer_key: str, wallet: Wire, other: Wire, wallet_device: TestDevice) -> None:
    """Freeze and unfreeze the wallet through the API."""
    async with http_client(server.url, issuer_key) as issuer:
        for status in ("frozen", "active"):
            await issuer.patch(f"/v1/wallets/{wallet_device.device.number}", json={"status": status})
            for wire in (wallet, other):
                notice = await wire.receive()
                assert (notice["type"], notice["status"]) == ("status.changed", status)


# Integers that may be null: in a payment that was canceled before its scan, in an open or uncounted shift.
NULLABLE = {
    ("TerminalPaymentResult", "amount_minor"),
    ("ShiftReport", "closed_at_ms"),
    ("ShiftReport", "counted_cash_minor"),
    ("ShiftReport", "cash_difference_minor"),
}


def broken(name: str, frame: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the frame with one fault: a missing field, a value of another type, a value out of bounds."""
    faults = {
        "amount_minor": [0, -1, 2**53, 12.5],
        "balance_minor": [-1, 2**53],
        "expires_at_ms": [-1],
        "next_cursor": ["x" * 65],
        "next_step": ["no_such_step", ""],
        "payments": [[{}], [7], [frame], [*frame.get("payments", []), {"type": "payment.result"}]],
        "pin_tries_left": [-1],
        "refund_id": ["7", ""],
        "refundable_minor": [-1, 2**53],
        "refunded_minor": [-1, 2**53],
        "code": ["no_such_code", ""],
        "currency": ["eur", "EURO", "EUR\n"],
        "decline_code": ["no_such_code", ""],
        "nonce": [str(frame.get("nonce"))[:-1], "Z" * 64],
        "paid_by": ["7", ""],
        "payment_id": [str(frame.get("payment_id"))[:-1], str(frame.get("payment_id")).upper()],
        "protocol": ["pos.v2"],
        "reply_to": [" ", "é", "x" * 65],
        "slot": [-1, 10],
        "report": ["Y", ""],
        "shift_id": ["7", ""],
        "shift_number": [0],
        "totals": [[{}], [7], [{"kind": "gift", "count": 1, "amount_minor": 1}]],
        "status": ["paid", "APPROVED"],
        "type": ["no.such.type"],
        "version": [0],
    }
    for field in frame:
        yield {name: value for name, value in frame.items() if name != field}
        for value in ({}, *([] if field in ("payments", "totals") else [[]]), *faults.get(field, ())):
            yield frame | {field: value}
        if isinstance(frame[field], bool | int):
            yield frame | {field: str(frame[field])}
            if (name, field) not in NULLABLE:
                yield frame | {field: None}
        if isinstance(frame[field], str):
            yield frame | {field: 7}
            yield frame | {field: True}


@pytest.mark.asyncio
async def test_the_server_sends_what_the_document_describes(
    dsn: str, shop: Shop, connection: asyncpg.Connection
) -> None:
    second_phone = await activated(connection, DeviceId(DeviceKind.WALLET, shop.wallets[0].device.number, 1))
    issuer_key = await operator_acts.new_key(connection, Role.ISSUER, None, "the issuer's")
    frames = await play(dsn, shop, second_phone, issuer_key)
    assert {name for name, _ in frames} == FROM_SERVER
    for name, frame in frames:
        assert [fault for fault in broken(name, frame) if accepts(name, fault)] == []
        assert [other for other in set(SCHEMAS) - {name} if accepts(other, frame)] == []


@pytest.mark.asyncio
async def test_the_served_document_is_the_printed_one(server: RunningServer, tmp_path: Path) -> None:
    async with httpx.AsyncClient() as client:
        served = await client.get(f"{server.url}/asyncapi.json")
    assert (served.status_code, served.headers["content-type"]) == (200, MEDIA_TYPE)
    # Another process, with other hashes, and an unreachable database.
    printed = await pos_server(
        "asyncapi",
        PYTHONHASHSEED="7",
        POS_DATA_DIR=str(tmp_path / "none"),
        POS_DATABASE_URL="postgresql://127.0.0.1:1/none",
    )
    assert (printed.status, printed.err) == (0, "")
    assert printed.out.encode() == served.content
    assert not (tmp_path / "none").exists()


def test_the_document_contains_the_settings() -> None:
    default = json.loads(asyncapi_json(settings().wire_limits()))
    changed = settings(frame_bytes_max=9000, heartbeat_s=7, device_operations_max=3)
    other = json.loads(asyncapi_json(changed.wire_limits()))
    assert other["x-limits"] == default["x-limits"] | {
        "frame_bytes_max": 9000,
        "heartbeat_s": 7,
        "device_operations_max": 3,
    }
    assert other | {"x-limits": {}} == default | {"x-limits": {}}
