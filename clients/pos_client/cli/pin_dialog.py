"""The dialog about a payment that waits for its PIN: what is asked, and what the customer's lines mean."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from pos_server.core.protocol.server_messages import ConfirmationRequired, WalletPaymentResult

from ..errors import ClientError, ConnectionStopped
from ..wallet.client import Notice, WalletClient

NO = "n"
YES_HINT = f"Type the PIN and Enter; {NO} and Enter refuses. What you type is not shown."


class Dialog:
    """One wallet's questions, oldest first. A wallet without a PIN is asked to set one before.

    It never waits: requests run besides, and `prompt` says how things stand; answers go to `tell`, as notices do. It
    forgets a PIN as soon as it is sent.
    """

    def __init__(self, wallet: WalletClient, tell: Callable[[Notice], None]) -> None:
        self._wallet = wallet
        self._tell = tell
        self._asked: list[ConfirmationRequired] = []
        self._new_pin: str | None = None
        self._trouble: str | None = None
        self._work: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a question."""
        return bool(self._asked)

    def hear(self, notice: Notice) -> None:
        """A notice that may be a question, or the end of one."""
        if isinstance(notice, ConfirmationRequired | WalletPaymentResult):
            asked = [other for other in self._asked if other.payment_id != notice.payment_id]
            self._asked = [*asked, notice] if isinstance(notice, ConfirmationRequired) else asked

    def prompt(self) -> list[str]:
        """The question as lines; none when there is nothing to ask."""
        if not self._asked:
            return []
        question = self._asked[0].text
        if self._work is not None:
            return [question, "One moment …"]
        if self._wallet.pin_set is False:
            hint = "Type a new PIN of 4 to 12 digits" if self._new_pin is None else "Type the new PIN once more"
            hint = f"{hint} and Enter; {NO} and Enter refuses."
        else:
            hint = YES_HINT
        return [question, *([self._trouble] if self._trouble else []), hint]

    def typed(self, line: str) -> None:
        """A line of the customer."""
        line = line.strip()
        if not self._asked or self._work is not None or not line:
            return
        self._trouble = None
        asked = self._asked[0]
        if line.lower() == NO:
            self._begin(partial(self._reject, asked))
        elif self._wallet.pin_set is not False:
            self._begin(partial(self._confirm, asked, line))
        elif self._new_pin is None:
            self._new_pin = line
        else:
            first, self._new_pin = self._new_pin, None
            if first == line:
                self._begin(partial(self._set_pin, line))
            else:
                self._trouble = "Those were two different PINs. Again:"

    async def close(self) -> None:
        """End what runs."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])

    def _begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = asyncio.create_task(self._run(work))

    async def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except ConnectionStopped:
            pass  # whoever reads the notices says so
        except (ClientError, ValueError) as error:
            self._trouble = f"That did not work: {error}"
        finally:
            self._work = None

    async def _confirm(self, asked: ConfirmationRequired, pin: str) -> None:
        self._answered(await self._wallet.confirm(asked.payment_id, asked.version, pin))

    async def _reject(self, asked: ConfirmationRequired) -> None:
        self._answered(await self._wallet.reject(asked.payment_id))

    async def _set_pin(self, pin: str) -> None:
        await self._wallet.set_pin(pin)

    def _answered(self, answer: WalletPaymentResult | ConfirmationRequired) -> None:
        self.hear(answer)
        self._tell(answer)
