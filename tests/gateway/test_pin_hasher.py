"""The threads that check PINs: a check that could not start leaves no trace."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pos_server.gateway.pin_hasher import PinHasher, PinHasherBusy
from pos_server.limits import PinHasherLimits
from tests.support import KEYRING

pytestmark = pytest.mark.asyncio

WALLET = 1_000_000_001


class NoThreads(ThreadPoolExecutor):
    """An executor on a system that gives no more threads."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **options: Any) -> Any:
        raise RuntimeError("can't start new thread")


async def test_checks_that_cannot_start_do_not_count_as_open(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = PinHasherLimits(passes=1, memory_kib=8, threads=1, waiting_max=0)
    hasher = PinHasher(limits, KEYRING)
    with monkeypatch.context() as exhausted:
        exhausted.setattr(hasher, "_threads", NoThreads(1))
        for _ in range(3):
            with pytest.raises(RuntimeError, match="thread"):
                await hasher.hash(WALLET, "274951")
    stored = await hasher.hash(WALLET, "274951")
    assert await hasher.is_correct(WALLET, "274951", stored)
    hasher.close()


async def test_more_checks_than_may_wait_are_busy() -> None:
    hasher = PinHasher(PinHasherLimits(passes=1, memory_kib=8, threads=1, waiting_max=0), KEYRING)
    first = hasher.hash(WALLET, "274951")
    first.send(None)
    with pytest.raises(PinHasherBusy):
        await hasher.hash(WALLET, "274951")
    first.close()
    hasher.close()
