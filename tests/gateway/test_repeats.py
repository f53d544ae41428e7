"""Repeats of a message differ only in the fields that docs/protocol.md names, wherever they come from."""

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.server import serving
from tests.docs.documents import read as read_document
from tests.gateway.test_cancel import cancel_message
from tests.gateway.test_pin import confirm_message, pin_message
from tests.gateway.test_refund import refund_message
from tests.gateway.test_resume import replay
from tests.gateway.test_shifts import closing, opening, query
from tests.support import KEYRING, Shop, TestDevice, ask, authenticate, raw_socket, receive, scan_message, settings

pytestmark = pytest.mark.asyncio

_ROWS = read_document("protocol.md").section("Delivery").table("Message", "Fields that may differ")
NEW_NAMES = "update merchant set name = 'Corner Cafe' where id = $1"


def may_differ(kind: DeviceKind, type_: str) -> set[str]:
    """Return the fields that the document names for a type of message to this kind of device."""
    names = {"all messages", type_, f"{type_}, to a {kind}"}
    rows = [row["Fields that may differ"] for row in _ROWS if row["Message"] in names]
    return {name for row in rows for name in row.partition(";")[0].split(", ")}


class Messages:
    """The first message about each state of a payment, refund or shift, by the kind of its recipient."""

    def __init__(self) -> None:
        self._first: dict[tuple[object, ...], dict[str, Any]] = {}
        self.differing: set[tuple[str, str]] = set()

    def check(self, kind: DeviceKind, message: dict[str, Any], *, other_language: bool = False) -> dict[str, Any]:
        """Compare a message with the first one about the same state. Entries of lists are messages too."""
        for entry in message.get("payments", ()):
            self.check(kind, entry, other_language=other_language)
        names = ("refund_id",) if "refund_id" in message else ("payment_id", "version", "shift_id", "report")
        state = tuple(message.get(name) for name in names)
        if not any(state) or message["type"] == "ready" or message.get("report") == "X":
            return message
        first = self._first.setdefault((kind, message["type"], *state), message)
        allowed = may_differ(kind, message["type"]) | ({"text"} if other_language else set())
        differing = {name for name in first.keys() | message.keys() if first.get(name) != message.get(name)}
        assert differing <= allowed, (differing - allowed, first, message)
        self.differing |= {(message["type"], name) for name in differing}
        return message


@pytest_asyncio.fixture
async def urls(dsn: str) -> AsyncIterator[tuple[str, str]]:
    """Two servers that require the PIN for 50.00 EUR and more."""
    limits = settings(pin_free_minor_max=4_999)
    async with serving(limits, KEYRING, dsn) as here, serving(limits, KEYRING, dsn) as there:
        yield here.url, there.url


@asynccontextmanager
async def resumed(
    messages: Messages, url: str, device: TestDevice, language: str = "en"
) -> AsyncIterator[ClientConnection]:
    """Yield a connection whose replay has been checked."""
    kind = device.device.kind
    async with raw_socket(url, kind) as socket:
        hello = await receive(socket)
        ready = await ask(socket, authenticate(device, hello["nonce"], since_ms=1, language=language))
        for message in await replay(socket, ready):
            messages.check(kind, message, other_language=language != "en")
        yield socket


async def test_repeats_differ_only_in_the_stated_fields(
    urls: tuple[str, str], shop: Shop, admin: asyncpg.Connection
) -> None:
    messages, ids = Messages(), itertools.count()
    here, there = urls
    device, wallet = shop.terminals[0], shop.wallets[0]
    scan = scan_message(wallet.code())
    declined = scan_message("no code")
    pending = scan_message(wallet.code(), amount_minor=5_000)
    requests = [scan, declined, pending]

    async def till(url: str, language: str = "en", *more: dict[str, Any]) -> None:
        async with resumed(messages, url, device, language) as socket:
            for request in (*requests, *more):
                for _ in range(2):
                    sent = request | {"message_id": str(next(ids))}
                    answer = await ask(socket, sent)
                    while answer["reply_to"] != sent["message_id"]:
                        answer = await receive(socket)
                    assert answer["type"] != "error", answer
                    messages.check(DeviceKind.TERMINAL, answer, other_language=language != "en")
            for request in requests:
                by_id = {"type": "payment.query", "message_id": "q", "payment_id": request["payment_id"]}
                messages.check(DeviceKind.TERMINAL, await ask(socket, by_id), other_language=language != "en")
            recent = {"type": "payments.recent", "message_id": "r"}
            messages.check(DeviceKind.TERMINAL, await ask(socket, recent), other_language=language != "en")

    async def phone(url: str, *sent: dict[str, Any]) -> None:
        async with resumed(messages, url, wallet) as socket:
            for request in sent:
                await socket.send(json.dumps(request))
            await socket.send(json.dumps({"type": "history", "message_id": "h"}))
            while (message := await receive(socket))["type"] != "history.page":
                messages.check(DeviceKind.WALLET, message)
            messages.check(DeviceKind.WALLET, message)

    shift = opening()
    await till(here, "en", shift, query())
    await phone(there, pin_message())
    await till(there, "zh")
    async with resumed(messages, there, wallet):
        await till(here)  # the wallet is online now
    await phone(here, confirm_message({"payment_id": pending["payment_id"], "version": 1}, "999999"))
    await phone(there)
    refund = refund_message(scan["payment_id"])
    await till(here, "en", refund)
    await till(there, "en", refund_message(scan["payment_id"]), refund)
    await till(here, "en", cancel_message(payment_id=pending["payment_id"]), closing(shift))
    await admin.execute(NEW_NAMES, shop.merchant_id)
    await phone(here)
    await till(there, "en", closing(shift))
    assert {
        ("payment.pending", "wallet_online"),
        ("payment.pending", "text"),
        ("payment.confirmation_required", "text"),
        ("payment.result", "merchant_name"),
        ("refund.result", "refundable_minor"),
        ("shift.report", "merchant_name"),
    } <= messages.differing
