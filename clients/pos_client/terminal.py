"""A till: it scans codes and hears what became of each payment.

A scan ends in one of three ways, never two: a result (approved or declined), or it is known that nothing happened
(ScanRefused, ScanNotDone), or the outcome is unknown (OutcomeUnknown). Until then the same payment_id is sent again
after every reconnect and after every error that says so; the server answers a repeat with what it stored.
"""

import asyncio
import itertools
from dataclasses import dataclass, field
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from uuid_utils.compat import uuid7

from pos_server.core.device_keys import DeviceKind
from pos_server.core.errors import ErrorCode
from pos_server.core.messages import Error, Hello, PaymentScan, TerminalMessage, TerminalPaymentResult, TerminalReady

from .backoff import Backoff
from .connection import DeviceClient, log
from .credentials import Credentials
from .errors import OutcomeUnknown, ScanNotDone, ScanRefused

SCAN_TIMEOUT_S = 45.0
SCANS_IN_FLIGHT_MAX = 16
CODE_CHARS_MAX = 64
"""Scanners read longer symbols than payment codes; the server would close the connection for a huge one."""

_messages: TypeAdapter[Hello | TerminalReady | TerminalPaymentResult | Error] = TypeAdapter(TerminalMessage)


@dataclass(eq=False)
class _OpenScan:
    """A scan without an answer yet. `in_doubt` holds the ids of the messages that the server may have acted on."""

    payment_id: UUID
    deadline_s: float
    result: asyncio.Future[TerminalPaymentResult] = field(default_factory=lambda: asyncio.Future())
    in_doubt: set[str] = field(default_factory=set)
    again: asyncio.Event = field(default_factory=asyncio.Event)
    retries: int = 0
    retry_in_s: float = 0.0
    trouble: str | None = None

    def give_up(self, error: Exception) -> None:
        if not self.result.done():
            self.result.set_exception(error)

    def unanswered(self, reason: str) -> OutcomeUnknown | ScanNotDone:
        return (OutcomeUnknown if self.in_doubt else ScanNotDone)(self.payment_id, reason)


class TerminalClient(DeviceClient[TerminalReady, TerminalPaymentResult]):
    """One till's session. `async with TerminalClient(credentials) as till: result = await till.scan(…)`.

    Raises CredentialsError for a wallet's credentials.
    """

    def __init__(self, credentials: Credentials, *, backoff: Backoff | None = None) -> None:
        super().__init__(credentials, DeviceKind.TERMINAL, _messages, backoff=backoff)
        self._open: dict[UUID, _OpenScan] = {}
        self._slots = asyncio.Semaphore(SCANS_IN_FLIGHT_MAX)

    async def scan(
        self,
        *,
        code: str,
        amount_minor: int,
        reference: str,
        payment_id: UUID | None = None,
        timeout_s: float = SCAN_TIMEOUT_S,
    ) -> TerminalPaymentResult:
        """Ask for `amount_minor` (minor units of the terminal's currency) with a scanned code, and wait for the result.

        `status` of the result is `approved` or a decline's. `reference` is the merchant's order number, 1 to 64
        printable characters: an order is never charged twice. To ask again after OutcomeUnknown, pass its
        `payment_id` and the same code, amount and reference. At most SCANS_IN_FLIGHT_MAX scans run at once; more wait.
        Cancelling it leaves the outcome unknown. Raises ValueError for input that no server would take, ScanRefused,
        ScanNotDone, OutcomeUnknown, ConnectionStopped.
        """
        if len(code) > CODE_CHARS_MAX or not code.isascii():
            raise ValueError("that is not a payment code")
        try:
            scan = PaymentScan(
                message_id="1",
                payment_id=payment_id or uuid7(),
                reference=reference,
                amount_minor=amount_minor,
                currency=self.credentials.currency,
                code=code,
            )
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise ValueError(f"{first['loc'][0]}: {first['msg']}") from None
        if scan.payment_id in self._open:
            raise ValueError(f"payment {payment_id} is being scanned already")
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        open_scan = self._open[scan.payment_id] = _OpenScan(scan.payment_id, deadline_s)
        if payment_id is not None:
            open_scan.in_doubt.add("an earlier call")
        sender = asyncio.create_task(self._send_until_answered(scan, open_scan))
        try:
            async with asyncio.timeout_at(deadline_s):
                return await open_scan.result
        except TimeoutError:
            reason = open_scan.trouble or self.problem or f"no answer within {timeout_s:g} s"
            raise open_scan.unanswered(reason) from None
        finally:
            del self._open[scan.payment_id]
            sender.cancel()

    async def _send_until_answered(self, scan: PaymentScan, open_scan: _OpenScan) -> None:
        try:
            async with self._slots:
                for number in itertools.count(1):
                    link = await self._online()
                    message = scan.model_copy(update={"message_id": f"{scan.payment_id}.{number}"})
                    open_scan.again.clear()
                    open_scan.retry_in_s = 0.0
                    open_scan.in_doubt.add(message.message_id)
                    if await link.send(message):
                        await open_scan.again.wait()
                    await self._backoff.sleep(open_scan.retry_in_s)
        except Exception as error:  # ConnectionStopped, or a fault of ours: either way scan() must not wait for it
            open_scan.give_up(open_scan.unanswered(str(error)) if open_scan.in_doubt else error)

    def _on_message(self, message: TerminalPaymentResult | Error) -> None:
        if isinstance(message, Error):
            self._on_error(message)
            return
        open_scan = self._open.get(message.payment_id)
        if open_scan is None or open_scan.result.done():
            log.info("dropped a result nobody waits for: payment %s version %d", message.payment_id, message.version)
            return
        open_scan.result.set_result(message)

    def _on_error(self, error: Error) -> None:
        open_scan = next((scan for scan in self._open.values() if error.reply_to in scan.in_doubt), None)
        if open_scan is None:
            log.warning("the server reported an error that answers no open scan: %s", error.code)
            return
        if not error.retryable:
            open_scan.give_up(ScanRefused(error.code, error.message, error.field))
            return
        if error.code != ErrorCode.UNKNOWN_OUTCOME and error.reply_to is not None:
            open_scan.in_doubt.discard(error.reply_to)
        open_scan.trouble = error.message
        open_scan.retry_in_s = error.retry_after_s or self._backoff.delay_s(open_scan.retries)
        open_scan.retries += 1
        if asyncio.get_running_loop().time() + open_scan.retry_in_s >= open_scan.deadline_s:
            open_scan.give_up(open_scan.unanswered(f"{error.message}; try again in {open_scan.retry_in_s:.0f} s"))
        open_scan.again.set()

    def _on_offline(self) -> None:
        for open_scan in self._open.values():
            open_scan.again.set()
