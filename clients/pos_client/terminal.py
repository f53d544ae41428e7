"""A till: it scans codes and hears what became of each payment.

A scan ends in one of three ways, never two: a result (approved or declined), or it is known that nothing happened
(ScanRefused, ScanNotDone), or the outcome is unknown (OutcomeUnknown). Until then the same payment_id is sent again:
when no answer comes for some seconds, after every reconnect, and after every error that says so. The server answers a
repeat with what it stored. A scan that was switched off in the middle is taken up again from the journal.
"""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from uuid_utils.compat import uuid7

from pos_server.core.device_keys import DeviceKind
from pos_server.core.errors import ErrorCode
from pos_server.core.messages import (
    Draining,
    Error,
    Hello,
    PaymentScan,
    TerminalMessage,
    TerminalPaymentResult,
    TerminalReady,
)

from .backoff import Backoff
from .connection import DeviceClient, Link, log
from .credentials import Credentials
from .errors import ConnectionStopped, OutcomeUnknown, ScanRefused
from .inbox import Inbox
from .journal import JournaledScan
from .open_scan import OpenScan
from .recovery import RecoveredScan, Recovery
from .resume import Resume

SCAN_TIMEOUT_S = 45.0
SCANS_IN_FLIGHT_MAX = 16
RESEND_AFTER_S = 5.0
"""Without an answer on a live connection, the same scan is sent again after this long."""
RESENDS_MAX = 12
"""How often so on one connection: a server in trouble is not asked for ever."""
RESULTS_MAX = 100
"""Results that wait for `result()`; the oldest is dropped for the newest."""
CODE_CHARS_MAX = 64
"""Scanners read longer symbols than payment codes; the server would close the connection for a huge one."""

_messages: TypeAdapter[Hello | TerminalReady | TerminalPaymentResult | Draining | Error] = TypeAdapter(TerminalMessage)


class TerminalClient(DeviceClient[TerminalReady, TerminalPaymentResult]):
    """One till's session. `async with TerminalClient(credentials) as till: result = await till.scan(…)`.

    With a `journal` (a file of its own), scans outlive this process: those that an earlier one left without an outcome
    are sent again as soon as there is a connection, and `recovered` tells what became of them. The server never
    charges a scan twice, but one that had not reached it before is decided now. The file holds the codes of scans that
    are not settled: keep it private. Raises CredentialsError for a wallet's credentials.
    """

    def __init__(
        self, credentials: Credentials, *, journal: Path | None = None, backoff: Backoff | None = None
    ) -> None:
        self._recovery = Recovery(journal, credentials)
        resume = Resume(self._recovery.since_ms, self._recovery.heard)
        super().__init__(credentials, DeviceKind.TERMINAL, _messages, backoff=backoff, resume=resume)
        self._open: dict[UUID, OpenScan] = {}
        self._slots = asyncio.Semaphore(SCANS_IN_FLIGHT_MAX)
        self._results: Inbox[TerminalPaymentResult] = Inbox(RESULTS_MAX)
        self._recovering: asyncio.Task[list[RecoveredScan]]
        self._to_recover: dict[UUID, TerminalPaymentResult | None] = {
            entry.payment_id: None for entry in self._recovery.left_open
        }

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._recovering = asyncio.create_task(self._recover(), name="pos-recovery")
        return self

    async def __aexit__(self, *exception: object) -> None:
        await super().__aexit__(*exception)
        await asyncio.wait([self._recovering])  # the stop has ended its scans
        self._recovery.resume_from(self._resume.since_ms)
        await self._recovery.close()

    @property
    def left_open(self) -> int:
        """How many scans an earlier process left without an outcome: what `recovered` tells about."""
        return len(self._recovery.left_open)

    @property
    def unread(self) -> int:
        """How many results wait for `result`."""
        return len(self._results)

    async def recovered(self) -> list[RecoveredScan]:
        """What became of the scans that an earlier process left without an outcome, oldest first; once all are known.

        Waits as long as the server is away, then at most SCAN_TIMEOUT_S for its answers. Every call returns the same.
        """
        return await asyncio.shield(self._recovering)

    async def result(self) -> TerminalPaymentResult:
        """Wait for a result that no `scan` waits for: of one that was given up, or a later version of one.

        Each version of each payment comes once, but that of a `scan` or of `recovered` does not come here again. After
        a restart without a journal, what the server replays comes here. Raises ConnectionStopped when no more will.
        """
        result = await self._results.get()
        self._recovery.settle(result.payment_id, result.version)
        return result

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
        Cancelling it leaves the outcome unknown; what comes later comes to `result`. Raises ValueError for input that
        no server would take, ScanRefused, ScanNotDone, OutcomeUnknown, ConnectionStopped.
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
        self._recovery.check_repeat(scan)
        return await self._scan(scan, timeout_s, asked_before=payment_id is not None)

    async def _scan(self, scan: PaymentScan, timeout_s: float, *, asked_before: bool) -> TerminalPaymentResult:
        if scan.payment_id in self._open:
            raise ValueError(f"payment {scan.payment_id} is being scanned already")
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        open_scan = self._open[scan.payment_id] = OpenScan(scan.payment_id, deadline_s)
        if asked_before:
            open_scan.in_doubt.add("an earlier call")
        sender = asyncio.create_task(self._send_until_answered(scan, open_scan))
        try:
            async with asyncio.timeout_at(deadline_s):
                result = await open_scan.result
            self._recovery.settle(scan.payment_id, result.version)
            return result
        except TimeoutError:
            reason = open_scan.trouble or self.problem or f"no answer within {timeout_s:g} s"
            raise open_scan.unanswered(reason) from None
        except ScanRefused:
            open_scan.in_doubt.clear()
            raise
        finally:
            del self._open[scan.payment_id]
            sender.cancel()
            if not open_scan.in_doubt:
                self._recovery.settle(scan.payment_id, None)

    async def _recover(self) -> list[RecoveredScan]:
        return await asyncio.gather(*map(self._recover_one, self._recovery.left_open))

    async def _recover_one(self, entry: JournaledScan) -> RecoveredScan:
        fields = entry.model_dump(include={"payment_id", "reference", "amount_minor", "currency"})
        outcome: TerminalPaymentResult | OutcomeUnknown
        try:
            await self._online()
            replayed = self._to_recover.pop(entry.payment_id)
            if replayed is None:
                scan = PaymentScan(message_id="1", code=entry.code, **fields)
                outcome = await self._scan(scan, SCAN_TIMEOUT_S, asked_before=True)
            else:
                outcome = replayed
                self._recovery.settle(entry.payment_id, replayed.version)
        except OutcomeUnknown as error:
            outcome = error
        except (ConnectionStopped, ValueError) as error:  # the latter: the caller asks for it already
            outcome = OutcomeUnknown(entry.payment_id, str(error))
        return RecoveredScan(**fields, created_at_ms=entry.created_at_ms, outcome=outcome)

    async def _send_until_answered(self, scan: PaymentScan, open_scan: OpenScan) -> None:
        numbers = itertools.count(1)
        try:
            async with self._slots:
                link = await self._online()
                await self._recovery.add(scan)
                while True:
                    await self._send_on(link, scan, open_scan, numbers)
                    await self._backoff.sleep(open_scan.retry_in_s)
                    link = await self._online()
        except Exception as error:  # ConnectionStopped, or a fault of ours: either way scan() must not wait for it
            open_scan.give_up(open_scan.unanswered(str(error)) if open_scan.in_doubt else error)

    async def _send_on(
        self, link: Link[TerminalReady], scan: PaymentScan, open_scan: OpenScan, numbers: Iterator[int]
    ) -> None:
        """Send a scan, and again when no answer comes, until it is to be tried anew or the link is lost."""
        open_scan.again.clear()
        open_scan.retry_in_s = 0.0
        open_scan.held = False
        for resends_left in range(RESENDS_MAX, -1, -1):
            message = scan.model_copy(update={"message_id": f"{scan.payment_id}.{next(numbers)}"})
            open_scan.in_doubt.add(message.message_id)
            if not await link.send(message):
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(RESEND_AFTER_S if resends_left else None):
                    await open_scan.again.wait()
            if open_scan.held:
                await open_scan.again.wait()
            if open_scan.again.is_set():
                return

    def _on_message(self, message: TerminalPaymentResult | Error) -> None:
        if isinstance(message, Error):
            self._on_error(message)
            return
        new = self._resume.on_result(message.payment_id, message.version, message.decided_at_ms)
        self._recovery.resume_from(self._resume.since_ms)
        open_scan = self._open.get(message.payment_id)
        if open_scan is not None and not open_scan.result.done():
            open_scan.result.set_result(message)
        elif message.payment_id in self._to_recover:
            self._to_recover[message.payment_id] = message
        elif new:
            self._results.put(message)

    def _on_error(self, error: Error) -> None:
        open_scan = next((scan for scan in self._open.values() if error.reply_to in scan.in_doubt), None)
        if open_scan is None:
            log.warning("the server reported an error that answers no open scan: %s", error.code)
            return
        if not error.retryable:
            refused = ScanRefused(error.code, error.message, error.field)
            # What an earlier process sent may have been acted on, whatever is said of it now.
            left_open = self._recovery.was_left_open(open_scan.payment_id)
            open_scan.give_up(OutcomeUnknown(open_scan.payment_id, str(refused)) if left_open else refused)
            return
        if error.code != ErrorCode.UNKNOWN_OUTCOME and error.reply_to is not None:
            open_scan.in_doubt.discard(error.reply_to)
        open_scan.trouble = error.message
        if error.code == ErrorCode.DRAINING:
            open_scan.held = True
            return
        open_scan.retry_in_s = error.retry_after_s or self._backoff.delay_s(open_scan.retries)
        open_scan.retries += 1
        if asyncio.get_running_loop().time() + open_scan.retry_in_s >= open_scan.deadline_s:
            open_scan.give_up(open_scan.unanswered(f"{error.message}; try again in {open_scan.retry_in_s:.0f} s"))
        open_scan.again.set()

    def _on_online(self, ready: TerminalReady) -> None:
        self._recovery.resume_from(self._resume.since_ms)

    def _on_offline(self) -> None:
        for open_scan in self._open.values():
            open_scan.again.set()
            if self.stopped is not None:
                unknown = open_scan.unanswered(str(self.stopped))
                open_scan.give_up(unknown if open_scan.in_doubt else self.stopped)
        if self.stopped is not None:
            self._results.put(self.stopped)
