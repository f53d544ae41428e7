"""WalletClient: shows codes, online or offline, receives notices of payments, and confirms or rejects them.

PINs are sent and forgotten: no log, `repr` or file contains them.
"""

import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from pydantic import TypeAdapter
from uuid_utils.compat import uuid7

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.protocol.client_messages import (
    History,
    PaymentConfirm,
    PaymentReject,
    PinSet,
)
from pos_server.core.protocol.server_messages import (
    ConfirmationRequired,
    Draining,
    Error,
    Hello,
    HistoryPage,
    PinChanged,
    Replayed,
    StatusChanged,
    WalletMessage,
    WalletPaymentResult,
    WalletReady,
    WalletRefundResult,
)

from ..device.backoff import Backoff
from ..device.connection import DeviceClient, local_time_ms
from ..device.credentials import Credentials
from ..device.requests import REQUEST_TIMEOUT_S, OpenRequest, build_request
from ..device.resume import Resume
from ..errors import CodesExhausted, CredentialsError
from .codes import CodeSource, ShownCode
from .state import WalletStateFile

PIN_TIMEOUT_S = 30.0
"""Default time that a confirmation and a PIN change wait for their answer."""

Notice = WalletPaymentResult | ConfirmationRequired | WalletRefundResult | PinChanged | StatusChanged
_Message = Notice | HistoryPage | Error
log = logging.getLogger("pos_client")
_messages: TypeAdapter[Hello | WalletReady | _Message | Replayed | Draining] = TypeAdapter(WalletMessage)


@dataclass(eq=False)
class _OpenDecision(OpenRequest[WalletPaymentResult | ConfirmationRequired]):
    """The customer's decision on a pending payment. Any result of the payment answers it."""

    body: PaymentConfirm | PaymentReject = field(repr=False)

    def is_about(self, result: WalletPaymentResult) -> bool:
        """Return whether a result is that of the decided payment. A decision without a merchant fits any merchant."""
        body = self.body
        return body.payment_id == result.payment_id and body.merchant_id in (None, result.merchant_id)


class WalletClient(DeviceClient[WalletReady, _Message, Notice]):
    """One wallet device. `async with WalletClient(credentials) as wallet: …`; `code()` needs no connection.

    `state_file` keeps the state that must survive a restart (`wallet/state.py`): with it, a new process receives the
    notices that were missed in between. `language` (RFC 5646, such as `zh-CN`) selects the texts for the customer, if
    the server supports it. `now_ms` returns this machine's time in Unix ms. Raises CredentialsError for a terminal's
    credentials and for an unreadable state file.
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
        """Latest known balance in minor units of the wallet's currency; None before the first connection."""
        self.pin_set: bool | None = None
        """True if the wallet has a PIN, as far as known; None before the first connection."""
        self.status: str | None = None
        """Latest known status: `active`, `frozen` or `closed`; None before the first connection."""
        self._codes = CodeSource(credentials, state_file=state_file, now_ms=now_ms)
        self.clock_offset_ms = self._codes.clock_offset_ms
        self._decisions: list[_OpenDecision] = []

    async def __aexit__(self, *exception: object) -> None:
        await super().__aexit__(*exception)
        if not any(exception):
            self._unread.acknowledge()
        self._save_position()

    @property
    def unread(self) -> int:
        """Number of notices that wait for `next_notice`."""
        return len(self._unread)

    def code(self) -> ShownCode:
        """Return the code to show now: the same one until it is used or its step ends.

        Raises CodesExhausted when all ten codes of this step are used, CredentialsError when the state file cannot be
        written.
        """
        return self._codes.code()

    def used(self) -> None:
        """Mark the current code as used. Notices do this automatically; offline, the customer requests it."""
        self._codes.used()

    async def next_code(self) -> ShownCode:
        """Return the code to show now; waits for the next step when all codes of this one are used."""
        while True:
            try:
                return self.code()
            except CodesExhausted as error:
                await self._backoff.sleep(max(0, error.again_at_ms - self._now_ms()) / 1000)

    async def next_notice(self) -> Notice:
        """Wait for the next notice. Each version of each payment arrives once.

        Answer a ConfirmationRequired with `confirm` or `reject` before its `expires_at_ms` (server's Unix ms). Results
        that `confirm`, `reject` and `set_pin` return do not arrive here.

        After a restart, payments that wait for the PIN arrive again, and notices of the last seconds may. With a state
        file, unread notices arrive again too: calling this acknowledges the previous notice. Raises ConnectionStopped
        after the last notice.
        """
        self._unread.acknowledge()
        self._save_position()
        return await self._unread.get()

    async def notices(self) -> AsyncIterator[Notice]:
        """Iterate over the notices of `next_notice`. Ends by raising ConnectionStopped."""
        while True:
            yield await self.next_notice()

    async def notice(self) -> WalletPaymentResult:
        """Wait for the next result of a payment, skipping other notices. Raises ConnectionStopped."""
        while True:
            notice = await self.next_notice()
            if isinstance(notice, WalletPaymentResult):
                return notice

    async def confirm(
        self,
        payment_id: UUID,
        version: int,
        pin: str,
        *,
        merchant_id: int | None = None,
        timeout_s: float = PIN_TIMEOUT_S,
    ) -> WalletPaymentResult | ConfirmationRequired:
        """Confirm a pending payment. Ids and `version` come from the ConfirmationRequired that the customer saw.

        Without `merchant_id` (or with 0, as from an older server), the request is refused (`bad_field`) if the wallet
        has payments with this id at two merchants.
        Returns the payment's result: approved, declined or another final status. After a wrong PIN with tries left,
        returns a ConfirmationRequired with a greater version, to be answered again. A repeat with the same version is
        safe, because each PIN counts once. Raises ValueError, RequestRefused (such as `pin_not_set`),
        RequestUnanswered, ConnectionStopped.
        """
        confirm = build_request(
            PaymentConfirm, payment_id=payment_id, merchant_id=merchant_id or None, version=version, pin=pin
        )
        return await self._send_decision(_OpenDecision(confirm), timeout_s)

    async def reject(
        self, payment_id: UUID, *, merchant_id: int | None = None, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> WalletPaymentResult | ConfirmationRequired:
        """Reject a pending payment and return its result. A repeat is safe. `merchant_id` as for `confirm`.

        Raises RequestRefused (`payment_unknown`), RequestUnanswered, ConnectionStopped.
        """
        reject = build_request(PaymentReject, payment_id=payment_id, merchant_id=merchant_id or None)
        return await self._send_decision(_OpenDecision(reject), timeout_s)

    async def set_pin(
        self, new_pin: str, old_pin: str | None = None, *, timeout_s: float = PIN_TIMEOUT_S
    ) -> PinChanged:
        """Set the wallet's PIN (4 to 12 digits), or change it, which requires the old PIN.

        The request is resent until it is answered, and changes the PIN once. Raises ValueError, RequestRefused
        (`pin_too_weak`; `pin_wrong` for the old PIN; `pin_locked` with `retry_after_s`), RequestUnanswered,
        ConnectionStopped.
        """
        change = build_request(PinSet, request_id=uuid7(), new_pin=new_pin, old_pin=old_pin)
        answer: PinChanged = await self._requests.send_and_wait(OpenRequest(change), timeout_s)
        self.pin_set = True
        return answer

    async def history(
        self, limit: int = 20, cursor: str | None = None, *, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> HistoryPage:
        """Return a page of at most `limit` (1 to 50) payments, latest change first; `next_cursor` gets the next page.

        Raises ValueError, RequestRefused, RequestUnanswered, ConnectionStopped.
        """
        history = build_request(History, limit=limit, cursor=cursor)
        answer: HistoryPage = await self._requests.send_and_wait(OpenRequest(history), timeout_s)
        return answer

    async def _send_decision(
        self, decision: _OpenDecision, timeout_s: float
    ) -> WalletPaymentResult | ConfirmationRequired:
        self._decisions.append(decision)
        try:
            return await self._requests.send_and_wait(decision, timeout_s)
        finally:
            self._decisions.remove(decision)

    def _save_position(self) -> None:
        """Save the time to resume from, unless there are unread notices: those must arrive again after a restart."""
        since_ms = self._resume.since_ms
        if not self._unread.is_done or since_ms is None or since_ms == self._state_file.state.since_ms:
            return
        try:
            self._state_file.change(since_ms=since_ms)
        except CredentialsError as error:  # `code` raises it too; a notice must not fail for it
            log.warning("%s", error)

    def _on_message(self, message: _Message) -> None:
        match message:
            case Error():
                self._requests.on_error(message)
            case HistoryPage():
                self._reply(message.reply_to, message)
            case PinChanged():
                self.pin_set = True
                if not self._reply(message.reply_to, message):
                    self._unread.put(message)
            case StatusChanged():
                self.status = message.status
                self._unread.put(message)
            case WalletRefundResult():
                self.balance_minor = message.balance_minor
                if self._has_room() and self._resume.on_result(_key(message), message.version, message.decided_at_ms):
                    self._unread.put(message)
            case WalletPaymentResult() | ConfirmationRequired():
                self._on_payment(message)

    def _on_payment(self, message: WalletPaymentResult | ConfirmationRequired) -> None:
        # The first version of a payment used a code, of this device or of another device of this wallet.
        if not self._resume.knows(_key(message)):
            self._codes.used_at(message.decided_at_ms)
        is_answer = self._reply(message.reply_to, message)
        if isinstance(message, WalletPaymentResult):
            self.balance_minor = message.balance_minor
            for decision in self._decisions:
                if decision.is_about(message) and not decision.answer.done():
                    decision.on_answer(message)
                    is_answer = True
        if not is_answer and not self._has_room():
            return
        is_new = self._resume.on_result(_key(message), message.version, message.decided_at_ms)
        if is_new and not is_answer:
            self._unread.put(message)

    def _on_replayed(self, message: Replayed) -> None:
        super()._on_replayed(message)
        self._save_position()

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
        self._save_position()

    def _on_offline(self) -> None:
        self._requests.on_offline(self.stopped)
        if self.stopped:
            self._unread.close(self.stopped)


def _key(message: WalletPaymentResult | ConfirmationRequired | WalletRefundResult) -> tuple[int, UUID]:
    """Return the payment's key: two merchants may use the same payment id in one wallet."""
    return message.merchant_id, message.payment_id
