"""A customer's wallet: it shows codes, with or without a connection, hears of its payments, and confirms them.

PINs are sent and forgotten: they are in no log, no `repr` and no file.
"""

import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from pydantic import TypeAdapter
from uuid_utils.compat import uuid7

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.protocol.messages import (
    ConfirmationRequired,
    Draining,
    Error,
    Hello,
    History,
    HistoryPage,
    PaymentConfirm,
    PaymentReject,
    PinChanged,
    PinSet,
    StatusChanged,
    WalletMessage,
    WalletPaymentResult,
    WalletReady,
    WalletRefundResult,
)

from ..device.backoff import Backoff
from ..device.connection import DeviceClient, local_time_ms
from ..device.credentials import Credentials
from ..device.inbox import Inbox
from ..device.requests import REQUEST_TIMEOUT_S, OpenRequest, Requests, build_request
from ..device.resume import Resume
from ..errors import CodesExhausted, CredentialsError
from .codes import CodeSource, ShownCode
from .state import WalletStateFile

NOTICES_MAX = 100
"""Notices that wait to be read; the oldest is dropped for the newest."""
PIN_TIMEOUT_S = 30.0
"""How long a confirmation and a new PIN wait for their answer, unless told otherwise."""

Notice = WalletPaymentResult | ConfirmationRequired | WalletRefundResult | PinChanged | StatusChanged
_Said = Notice | HistoryPage | Error
log = logging.getLogger("pos_client")
_messages: TypeAdapter[Hello | WalletReady | _Said | Draining] = TypeAdapter(WalletMessage)


@dataclass(eq=False)
class _OpenAnswer(OpenRequest[WalletPaymentResult | ConfirmationRequired]):
    """What the customer said to a pending payment: any outcome of the payment answers it."""

    body: PaymentConfirm | PaymentReject = field(repr=False)


class WalletClient(DeviceClient[WalletReady, _Said]):
    """One wallet device. `async with WalletClient(credentials) as wallet: …`; `code()` needs no connection.

    `state_file` keeps what must outlive a restart (wallet_state.py): with it, a new process hears of the payments that
    it missed in between. `language` (RFC 5646, such as `zh-CN`) is that of the texts for the customer, where the server
    has it. `now_ms` is this machine's clock, in Unix ms.
    Raises CredentialsError for a terminal's credentials and for a state file that cannot be read.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        state_file: Path | None = None,
        language: str = "en",
        backoff: Backoff | None = None,
        now_ms: Callable[[], int] = local_time_ms,
    ) -> None:
        self._state_file = WalletStateFile(state_file)
        resume = Resume(self._state_file.state.since_ms)
        super().__init__(
            credentials,
            DeviceKind.WALLET,
            _messages,
            backoff=backoff,
            resume=resume,
            language=language,
            now_ms=now_ms,
        )
        self.balance_minor: int | None = None
        """The balance in minor units of the wallet's currency, as last told; None before the first connection."""
        self.pin_set: bool | None = None
        """Whether the wallet has a PIN, as last told; None before the first connection."""
        self.status: str | None = None
        """`active`, `frozen` or `closed`, as last told; None before the first connection."""
        self._codes = CodeSource(credentials, state_file=state_file, now_ms=now_ms)
        self.clock_offset_ms = self._codes.clock_offset_ms
        self._requests = Requests(self._online, self._backoff, lambda: self.problem)
        self._answers: list[_OpenAnswer] = []
        self._notices: Inbox[Notice] = Inbox(NOTICES_MAX)

    async def __aexit__(self, *exception: object) -> None:
        await super().__aexit__(*exception)
        self._remember()

    def code(self) -> ShownCode:
        """The code to show now: the same until it is used or its step is over.

        Raises CodesExhausted when the ten codes of this step are used, CredentialsError when the state file cannot
        be written.
        """
        return self._codes.code()

    def used(self) -> None:
        """Show another code from now on. A notice does so by itself; without a connection the customer asks for it."""
        self._codes.used()

    async def next_code(self) -> ShownCode:
        """Like `code`, but waits for the next step when the codes of this one are used."""
        while True:
            try:
                return self.code()
            except CodesExhausted as error:
                await self._backoff.sleep(max(0, error.again_at_ms - self._now_ms()) / 1000)

    async def next_notice(self) -> Notice:
        """Wait for the next word on this wallet; each version of each payment comes once.

        A ConfirmationRequired is to be answered with `confirm` or `reject` before its `expires_at_ms` (server's Unix
        ms). What `confirm`, `reject` and `set_pin` return does not come here again. After a restart, notices of the
        last seconds may come again, and what waits for the PIN does. What was not read comes again in any case, if
        there is a state file: asking for the next notice says that the one before has been dealt with. Raises
        ConnectionStopped when no more will come.
        """
        self._remember()
        return await self._notices.get()

    async def notices(self) -> AsyncIterator[Notice]:
        """All that `next_notice` waits for, one after the other; ends with ConnectionStopped."""
        while True:
            yield await self.next_notice()

    async def notice(self) -> WalletPaymentResult:
        """Wait for the next outcome of a payment, and skip the other notices. Raises ConnectionStopped."""
        while True:
            notice = await self.next_notice()
            if isinstance(notice, WalletPaymentResult):
                return notice

    async def confirm(
        self, payment_id: UUID, version: int, pin: str, *, timeout_s: float = PIN_TIMEOUT_S
    ) -> WalletPaymentResult | ConfirmationRequired:
        """Agree to a pending payment; `version` is that of the ConfirmationRequired which the customer saw.

        Returns what became of the payment: approved, or declined, or whatever else it is by then. After a wrong PIN
        that leaves tries, it is the ConfirmationRequired of a greater version, to be answered anew. It is safe to call
        again with the same version: a PIN counts once. Raises ValueError, RequestRefused (such as `pin_not_set`),
        RequestUnanswered, ConnectionStopped.
        """
        confirm = build_request(PaymentConfirm, payment_id=payment_id, version=version, pin=pin)
        return await self._answer(_OpenAnswer(confirm), timeout_s)

    async def reject(
        self, payment_id: UUID, *, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> WalletPaymentResult | ConfirmationRequired:
        """Say no to a pending payment; returns what became of it. Safe to call again.

        Raises RequestRefused (`payment_unknown`), RequestUnanswered, ConnectionStopped.
        """
        return await self._answer(_OpenAnswer(build_request(PaymentReject, payment_id=payment_id)), timeout_s)

    async def set_pin(
        self, new_pin: str, old_pin: str | None = None, *, timeout_s: float = PIN_TIMEOUT_S
    ) -> PinChanged:
        """Set the wallet's PIN, 4 to 12 digits, or change it with the old one.

        It is sent until it is answered, and changes the PIN once. Raises ValueError, RequestRefused (`pin_too_weak`;
        `pin_wrong` for the old PIN; `pin_locked` with `retry_after_s`), RequestUnanswered, ConnectionStopped.
        """
        change = build_request(PinSet, request_id=uuid7(), new_pin=new_pin, old_pin=old_pin)
        answer: PinChanged = await self._requests.send_and_wait(OpenRequest(change), timeout_s)
        self.pin_set = True
        return answer

    async def history(
        self, limit: int = 20, cursor: str | None = None, *, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> HistoryPage:
        """A page of at most `limit` (1 to 50) payments, latest change first; `next_cursor` of it asks for the next.

        Raises ValueError, RequestRefused, RequestUnanswered, ConnectionStopped.
        """
        history = build_request(History, limit=limit, cursor=cursor)
        answer: HistoryPage = await self._requests.send_and_wait(OpenRequest(history), timeout_s)
        return answer

    async def _answer(self, answer: _OpenAnswer, timeout_s: float) -> WalletPaymentResult | ConfirmationRequired:
        self._answers.append(answer)
        try:
            return await self._requests.send_and_wait(answer, timeout_s)
        finally:
            self._answers.remove(answer)

    def _remember(self) -> None:
        """Keep what to resume from, unless a notice waits to be read: a restart must hear of that one."""
        since_ms = self._resume.since_ms
        if len(self._notices) or since_ms is None or since_ms == self._state_file.state.since_ms:
            return
        try:
            self._state_file.change(since_ms=since_ms)
        except CredentialsError as error:  # the next code says so too; for a notice it is no reason to fail
            log.warning("%s", error)

    def _on_message(self, message: _Said) -> None:
        match message:
            case Error():
                self._requests.on_error(message)
            case HistoryPage():
                self._reply(message.reply_to, message)
            case PinChanged():
                self.pin_set = True
                if not self._reply(message.reply_to, message):
                    self._notices.put(message)
            case StatusChanged():
                self.status = message.status
                self._notices.put(message)
            case WalletRefundResult():
                self.balance_minor = message.balance_minor
                if self._resume.on_result(message.payment_id, message.version, message.decided_at_ms):
                    self._notices.put(message)
            case WalletPaymentResult() | ConfirmationRequired():
                self._on_payment(message)

    def _on_payment(self, message: WalletPaymentResult | ConfirmationRequired) -> None:
        # Of a payment, its first version used a code, this one's or that of another device of this wallet.
        if not self._resume.knows(message.payment_id):
            self._codes.used_at(message.decided_at_ms)
        is_new = self._resume.on_result(message.payment_id, message.version, message.decided_at_ms)
        answered = self._reply(message.reply_to, message)
        if isinstance(message, WalletPaymentResult):
            self.balance_minor = message.balance_minor
            for answer in self._answers:
                if answer.body.payment_id == message.payment_id and not answer.answer.done():
                    answer.on_answer(message)
                    answered = True
        if is_new and not answered:
            self._notices.put(message)

    def _reply(self, reply_to: str | None, message: object) -> bool:
        request = self._requests.find(reply_to)
        if request is not None:
            request.on_answer(message)
        return request is not None

    def _on_online(self, ready: WalletReady) -> None:
        self.balance_minor = ready.balance_minor
        self.pin_set = ready.pin_set
        self.status = ready.status
        self._codes.clock_offset_ms = self.clock_offset_ms
        self._remember()

    def _on_offline(self) -> None:
        self._requests.on_offline(self.stopped)
        if self.stopped:
            self._notices.put(self.stopped)
