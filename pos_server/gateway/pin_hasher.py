"""Hashes and checks PINs with Argon2id, in a few threads: each takes tens of milliseconds on purpose."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from ..core.credentials.device_keys import Keyring
from ..core.credentials.pins import PinHash, pin_secret
from ..core.errors import PosError
from ..limits import PinHasherLimits

T = TypeVar("T")


class PinHasherBusy(PosError):
    """Too many PINs are being checked: this one was not."""


class PinHasher:
    """Argon2id in a bounded number of threads, with a bounded number of waiting checks. Call `close` at the end."""

    def __init__(self, limits: PinHasherLimits, keyring: Keyring) -> None:
        self._keyring = keyring
        self._hasher = PasswordHasher(
            time_cost=limits.passes,
            memory_cost=limits.memory_kib,
            parallelism=1,
            type=Type.ID,
        )
        self._threads = ThreadPoolExecutor(limits.threads, thread_name_prefix="pin")
        self._open_max = limits.threads + limits.waiting_max
        self._open = 0

    async def hash(self, wallet_number: int, pin: str) -> PinHash:
        """Return what to store for a new PIN. Raises PinHasherBusy."""
        kid = self._keyring.current
        pepper = self._keyring.pin_pepper(kid)
        if pepper is None:
            raise AssertionError("the current master key is in the keyring")
        secret = pin_secret(pepper, wallet_number, pin)
        return PinHash(kid, await self._in_thread(lambda: self._hasher.hash(secret)))

    async def is_correct(self, wallet_number: int, pin: str, stored: PinHash) -> bool:
        """Return whether `pin` is the stored one; False also when its master key is retired. Raises PinHasherBusy."""
        pepper = self._keyring.pin_pepper(stored.kid)
        if pepper is None:
            return False
        secret = pin_secret(pepper, wallet_number, pin)
        return await self._in_thread(lambda: self._verify(stored.encoded, secret))

    def _verify(self, encoded: str, secret: bytes) -> bool:
        try:
            return self._hasher.verify(encoded, secret)
        except (VerificationError, InvalidHashError):
            return False

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._open >= self._open_max:
            raise PinHasherBusy
        # Raises RuntimeError if the system gives no thread: then nothing is open.
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        self._open += 1
        # Counted until the thread is done, also when the caller has gone away meanwhile.
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, future: "asyncio.Future[Any]") -> None:
        self._open -= 1
        if not future.cancelled():
            future.exception()

    def close(self) -> None:
        """End the threads and drop the checks that wait."""
        self._threads.shutdown(wait=False, cancel_futures=True)
