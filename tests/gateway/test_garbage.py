"""Closed connections leave no reference cycles, because the server runs garbage collection rarely (`server.py`)."""

import asyncio
import gc

import pytest
from websockets.server import ServerProtocol

from pos_server.gateway.websocket_protocol import WebSocketProtocol
from pos_server.server import RunningServer
from tests.support import ANSWER_TIMEOUT_S, Shop, ask, logged_in, receive, scan_message

pytestmark = pytest.mark.asyncio


def protocols() -> int:
    """Return the number of protocol objects of the server's connections."""
    return sum(type(thing) in (WebSocketProtocol, ServerProtocol) for thing in gc.get_objects())


async def test_a_closed_connection_is_freed_without_garbage_collection(server: RunningServer, shop: Shop) -> None:
    gc.collect()
    gc.freeze()  # what earlier tests of this process left is not looked at
    assert protocols() == 0
    gc.disable()
    try:
        for _ in range(3):
            till, phone = shop.terminals[0], shop.wallets[0]
            async with logged_in(server.url, till) as at_till, logged_in(server.url, phone) as on_phone:
                assert (await ask(at_till, scan_message(phone.code())))["status"] == "approved"
                await receive(on_phone)
                await ask(at_till, {"type": "nonsense"})
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            while protocols():  # noqa: ASYNC110 - the server's side of a close has no event for tests
                await asyncio.sleep(0)
    finally:
        gc.enable()
        gc.unfreeze()
