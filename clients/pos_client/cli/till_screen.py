"""`pos-terminal till`: one sale after the other. A failure stays in view until the cashier confirms it."""

import argparse
import asyncio
from uuid import UUID

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.money import format_amount
from pos_server.core.payments.payment import Status
from pos_server.core.protocol.server_messages import PaymentPending, TerminalPaymentResult

from ..device.credentials import Credentials, device_path, journal_path
from ..errors import OutcomeUnknown, RequestRefused, RequestUnanswered, ScanNotDone, ScanRefused
from ..terminal.open_payments import SCAN_TIMEOUT_S
from .console import ExitCode, Tone, UsageError, banner, print_error, print_line, printable
from .inputs import amount, digits, new_reference
from .till_session import TillSession, WaitAbandoned

GREETING_TIMEOUT_S = 5.0
TYPED = "t"
"""Prefix of a code that was typed by hand."""


def run_till(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    credentials = Credentials.load(device_path(args.device), DeviceKind.TERMINAL)
    with TillSession(credentials, journal_path(args.device), language=args.language) as till:
        try:
            ready = till.wait(asyncio.wait_for(till.client.ready(), GREETING_TIMEOUT_S))
            print_line(printable(f"{ready.merchant_name}, {ready.store_name}: terminal {ready.terminal_number}."))
        except TimeoutError:
            print_error("not connected yet: you can enter sales, which wait for the server.")
        needs_attention = till.report_recovered()
        print_line("Ctrl-C ends.")
        try:
            while till.client.stopped is None:
                if till.report_late() or needs_attention:
                    _wait_for_enter()
                needs_attention = False
                _sell(till)
        except EOFError:
            print_line()
            return ExitCode.OK
        raise till.client.stopped


def _sell(till: TillSession) -> None:
    """Run one sale: an amount, then scans until it is paid or abandoned. Raises EOFError when the input ends."""
    currency = till.client.credentials.currency
    print_line()
    try:
        amount_minor = amount(input(f"Amount in {currency}: "), currency)
    except UsageError as error:
        print_line(f"{error}")
        return
    sale = _Sale(till, amount_minor, new_reference(till.client.credentials.number))
    is_open = True
    while is_open:
        code = digits(input(f"Scan the customer's code ({TYPED} before typed digits, Enter alone cancels): "))
        if not code:
            return
        is_open = sale.pay(code.removeprefix(TYPED), typed=code.startswith(TYPED))


class _Sale:
    """One order, from its amount to an end that the cashier has confirmed."""

    def __init__(self, till: TillSession, amount_minor: int, reference: str) -> None:
        self._till = till
        self._amount_minor = amount_minor
        self._amount = format_amount(amount_minor, till.client.credentials.currency)
        self._reference = reference
        self._pending_id: UUID | None = None

    def pay(self, code: str, *, typed: bool) -> bool:
        """Complete one scan and return whether the same order may be scanned again."""
        payment_id: UUID | None = None
        while True:
            self._pending_id, self._till.waits_for_customer = None, False
            scan = self._till.client.scan(
                code=code,
                amount_minor=self._amount_minor,
                reference=self._reference,
                payment_id=payment_id,
                typed=typed,
                timeout_s=SCAN_TIMEOUT_S,
                on_pending=self._on_pending,
            )
            try:
                result = self._till.wait(scan, self._on_line)
            except OutcomeUnknown as error:
                payment_id = error.payment_id
                match self._ask_about_unknown(error):
                    case "":
                        continue
                    case "c":
                        return self._cancel(payment_id)
                return False
            except WaitAbandoned:
                return self._cancel(self._pending_id)
            except (ScanNotDone, ScanRefused, ValueError) as error:
                reason = error.reason if isinstance(error, ScanNotDone) else str(error)
                self._show("NOT CHARGED", Tone.BAD, reason)
                _wait_for_enter()
                return isinstance(error, ScanNotDone | ValueError)
            except KeyboardInterrupt:
                print_error(f"interrupted: the outcome of order {self._reference} is unknown")
                raise
            return self._end(result)

    def _end(self, result: TerminalPaymentResult) -> bool:
        if result.status == Status.APPROVED:
            self._show("APPROVED", Tone.GOOD)
            return False
        self._show(result.status.upper(), Tone.BAD, result.text)
        _wait_for_enter()
        return result.retryable

    def _ask_about_unknown(self, error: OutcomeUnknown) -> str:
        self._show("UNKNOWN", Tone.OPEN, "Do not hand out the goods and do not charge again.", error.reason)
        return input("Enter retries (it never charges twice), c cancels the payment, x leaves it unknown: ").strip()

    def _cancel(self, payment_id: UUID | None) -> bool:
        """Cancel until there is an answer, or until the cashier moves the cancel to the background."""
        if payment_id is None:
            raise AssertionError("nothing to cancel")
        self._till.waits_for_customer = False
        while True:
            print_line("Canceling …")
            try:
                result = self._till.wait(self._till.client.cancel(payment_id=payment_id, timeout_s=SCAN_TIMEOUT_S))
            except RequestUnanswered as error:
                self._show("NOT CANCELED YET", Tone.OPEN, "Do not hand out the goods.", error.reason)
                if input("Enter keeps trying, x cancels in the background and starts the next sale: ").strip():
                    self._till.keep_canceling(payment_id)
                    return False
            except RequestRefused as error:
                self._show("NOT CANCELED", Tone.BAD, str(error))
                _wait_for_enter()
                return False
            else:
                return self._end(result)

    def _on_pending(self, pending: PaymentPending) -> None:
        """Show a pending payment. Runs in the thread of the session."""
        title = "WAITING FOR PIN" if pending.wallet_online else "ASK THE CUSTOMER TO OPEN THE WALLET"
        self._pending_id, self._till.waits_for_customer = pending.payment_id, True
        self._show(title, Tone.OPEN, pending.text)
        print_line("c and Enter cancels the payment.")

    def _on_line(self, line: str) -> bool:
        return line.strip() == "c" and self._pending_id is not None

    def _show(self, title: str, tone: Tone, *texts: str) -> None:
        print_line(banner(title, [self._amount, *texts, f"Order {self._reference}"], tone))


def _wait_for_enter() -> None:
    input("Press Enter to continue. ")
