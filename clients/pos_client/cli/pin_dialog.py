"""The dialog about payments that wait for the PIN: its prompts, and the meaning of typed lines."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from pos_server.core.protocol.server_messages import ConfirmationRequired, WalletPaymentResult

from ..errors import ClientError, ConnectionStopped
from ..wallet.client import Notice, WalletClient

NO = "n"
PIN_HINT = f"Type the PIN and Enter; {NO} and Enter rejects. Input is not shown."


class PinDialog:
    """One wallet's payments that wait for the PIN, oldest first. A wallet without a PIN must set one first.

    It never blocks: requests run in a task, and `prompt` shows the current state. Answers go to `on_answer`, like
    notices. A PIN is forgotten once it is sent.
    """

    def __init__(self, wallet: WalletClient, on_answer: Callable[[Notice], None]) -> None:
        self._wallet = wallet
        self._on_answer = on_answer
        self._questions: list[ConfirmationRequired] = []
        self._new_pin: str | None = None
        self._error: str | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """True while a payment waits for the PIN."""
        return bool(self._questions)

    def on_notice(self, notice: Notice) -> None:
        """Handle a notice: it may open a question or close one."""
        if isinstance(notice, ConfirmationRequired | WalletPaymentResult):
            key = notice.merchant_id, notice.payment_id
            others = [each for each in self._questions if (each.merchant_id, each.payment_id) != key]
            self._questions = [*others, notice] if isinstance(notice, ConfirmationRequired) else others

    def prompt(self) -> list[str]:
        """Return the current question as lines, none without a question."""
        if not self._questions:
            return []
        text = self._questions[0].text
        if self._task is not None:
            return [text, "One moment …"]
        if self._wallet.pin_set is False:
            hint = "Type a new PIN of 4 to 12 digits" if self._new_pin is None else "Type the new PIN again"
            hint = f"{hint} and Enter; {NO} and Enter rejects."
        else:
            hint = PIN_HINT
        return [text, *([self._error] if self._error else []), hint]

    def on_line(self, line: str) -> None:
        """Handle a typed line: a rejection, a PIN, or a new PIN typed twice."""
        line = line.strip()
        if not self._questions or self._task is not None or not line:
            return
        self._error = None
        question = self._questions[0]
        if line.lower() == NO:
            self._start(partial(self._reject, question))
        elif self._wallet.pin_set is not False:
            self._start(partial(self._confirm, question, line))
        elif self._new_pin is None:
            self._new_pin = line
        else:
            new_pin, self._new_pin = self._new_pin, None
            if new_pin == line:
                self._start(partial(self._set_pin, line))
            else:
                self._error = "The two PINs differ."

    async def close(self) -> None:
        """Cancel the running request, if any."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _start(self, request: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = asyncio.create_task(self._run(request))

    async def _run(self, request: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await request()
        except ConnectionStopped:
            pass  # the reader of the notices reports it
        except (ClientError, ValueError) as error:
            self._error = f"That failed: {error}"
        finally:
            self._task = None

    async def _confirm(self, question: ConfirmationRequired, pin: str) -> None:
        answer = await self._wallet.confirm(
            question.payment_id, question.version, pin, merchant_id=question.merchant_id
        )
        self._take_answer(answer)

    async def _reject(self, question: ConfirmationRequired) -> None:
        self._take_answer(await self._wallet.reject(question.payment_id, merchant_id=question.merchant_id))

    async def _set_pin(self, pin: str) -> None:
        await self._wallet.set_pin(pin)

    def _take_answer(self, answer: WalletPaymentResult | ConfirmationRequired) -> None:
        self.on_notice(answer)
        self._on_answer(answer)
