"""`pos-terminal till`: one sale after the other. A failure stays in view until the cashier confirms it.

A sale that the cashier leaves is canceled, and goes on being canceled until the server has answered: nobody may be
charged for it later.
"""

import argparse
import asyncio
from uuid import UUID

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.money import format_amount
from pos_server.core.payments.payment import Status
from pos_server.core.protocol.server_messages import PaymentPending, TerminalPaymentResult, TerminalRefundResult

from ..device.credentials import Credentials, device_path, journal_path
from ..errors import ClientError, OutcomeUnknown, RequestRefused, RequestUnanswered, ScanNotDone, ScanRefused
from ..terminal.open_payments import SCAN_TIMEOUT_S
from .console import ExitCode, Tone, UsageError, banner, clock_time, command_line, print_error, print_line, printable
from .inputs import amount, digits, new_reference
from .prompts import ask, ask_one_of, is_code, refuse, wait_for_enter
from .till_session import Late, TillSession, WaitAbandoned

GREETING_TIMEOUT_S = 5.0
LEAVE_TIMEOUT_S = 3.0
"""Wait for the cancel of a sale in progress when the program ends. After it, the next start resumes the cancel."""
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
        print_line("Ctrl-C ends.")
        try:
            _report(args.device, till.recovered())
            while till.client.stopped is None:
                _report(args.device, till.late())
                _sell(till, args.device)
        except EOFError:
            print_line()
            if not till.is_canceling:
                return ExitCode.OK
            print_error("a sale is not canceled yet: the next start of this till resumes the cancel")
            return ExitCode.UNKNOWN
        except _LeftOpen:
            return ExitCode.UNKNOWN
        raise till.client.stopped


class _LeftOpen(Exception):
    """The program ends while a sale is not canceled yet."""


def _report(device: str, late: list[Late]) -> None:
    """Report outcomes that the cashier has not seen. A charge stays in view until Enter, and so does a failure."""
    for each in late:
        result = each.charged
        if result is None:
            print_error(f"earlier {each.line}")
            continue
        amount = "" if result.amount_minor is None else format_amount(result.amount_minor, result.currency)
        cancel = command_line(DeviceKind.TERMINAL, device, f"cancel --payment-id {result.payment_id}")
        texts = [
            amount,
            "An earlier sale was charged, and its result was not shown.",
            f"Order {result.reference}, {clock_time(result.decided_at_ms)}",
        ]
        print_line(banner("CHARGED", texts, Tone.OPEN))
        print_line(f"To give the money back: {cancel}")
    if any(not isinstance(each.outcome, TerminalRefundResult) for each in late):
        wait_for_enter()


def _sell(till: TillSession, device: str) -> None:
    """Run one sale: an amount, then scans until it is paid or abandoned. Raises EOFError when the input ends."""
    currency = till.client.credentials.currency
    print_line()
    text = ask(f"Amount in {currency}: ")
    if is_code(text):
        print_line("A code was scanned. Enter the amount first, then scan.")
        return
    try:
        amount_minor = amount(text, currency)
    except UsageError as error:
        print_line(f"{error}")
        return
    _report(device, till.late())  # what arrived while the prompt waited
    sale = _Sale(till, amount_minor, new_reference(till.client.credentials.number))
    is_open = True
    while is_open:
        code = digits(ask(f"Scan the customer's code ({TYPED} before typed digits, Enter alone cancels): "))
        if not code:
            return
        is_open = sale.run(code.removeprefix(TYPED), typed=code.startswith(TYPED))


class _Sale:
    """One order, from its amount to an end that the cashier has confirmed."""

    def __init__(self, till: TillSession, amount_minor: int, reference: str) -> None:
        self._till = till
        self._amount_minor = amount_minor
        self._amount = format_amount(amount_minor, till.client.credentials.currency)
        self._reference = reference
        self._pending_id: UUID | None = None
        self._is_open = False
        """True while the server may charge for a scan of this order whose result was not shown."""

    def run(self, code: str, *, typed: bool) -> bool:
        """Complete one scan and return whether the same order may be scanned again. Cancels it if the program ends.

        Raises _LeftOpen if the input ends and the cancel is not answered in time.
        """
        try:
            return self._pay(code, typed=typed)
        except (EOFError, KeyboardInterrupt) as end:
            if self._is_open and not self._leave() and isinstance(end, EOFError):
                raise _LeftOpen from None
            raise

    def _leave(self) -> bool:
        """Cancel the order before the program ends, and return whether the server has answered."""
        print_line()
        print_error(f"canceling order {self._reference} …")
        cancel = self._till.client.cancel(reference=self._reference, timeout_s=LEAVE_TIMEOUT_S)
        try:
            result = self._till.wait(cancel)
        except RequestUnanswered:
            print_error(f"order {self._reference} is not canceled yet: the next start of this till resumes the cancel")
            return False
        except ClientError as error:
            print_error(f"order {self._reference} is not canceled: {error}")
            return False
        print_error(f"order {self._reference}: {result.status}")
        return True

    def _pay(self, code: str, *, typed: bool) -> bool:
        payment_id: UUID | None = None
        while True:
            self._pending_id, self._till.waits_for_customer = None, False
            self._is_open = True
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
                    case _:
                        return self._cancel_later(payment_id)
            except WaitAbandoned:
                return self._cancel(self._pending_id)
            except (ScanNotDone, ScanRefused, ValueError) as error:
                self._is_open = False
                reason = error.reason if isinstance(error, ScanNotDone) else str(error)
                self._show("NOT CHARGED", Tone.BAD, reason)
                wait_for_enter()
                return isinstance(error, ScanNotDone | ValueError)
            return self._end(result)

    def _end(self, result: TerminalPaymentResult) -> bool:
        self._is_open = False
        if result.status == Status.APPROVED:
            self._show("APPROVED", Tone.GOOD)
            return False
        self._show(result.status.upper(), Tone.BAD, result.text)
        wait_for_enter()
        return result.retryable

    def _ask_about_unknown(self, error: OutcomeUnknown) -> str:
        self._show("UNKNOWN", Tone.OPEN, "Do not hand out the goods and do not charge again.", error.reason)
        question = "Enter retries (it never charges twice), c cancels the payment, x cancels it in the background: "
        return ask_one_of(question, ["", "c", "x"])

    def _cancel_later(self, payment_id: UUID) -> bool:
        self._is_open = False
        self._till.keep_canceling(payment_id)
        return False

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
                if ask_one_of("Enter keeps trying, x cancels in the background and starts the next sale: ", ["", "x"]):
                    return self._cancel_later(payment_id)
            except RequestRefused as error:
                self._is_open = False
                self._show("NOT CANCELED", Tone.BAD, str(error))
                wait_for_enter()
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
        line = line.strip()
        if line == "c" and self._pending_id is not None:
            return True
        if line:
            refuse(line)
        return False

    def _show(self, title: str, tone: Tone, *texts: str) -> None:
        print_line(banner(title, [self._amount, *texts, f"Order {self._reference}"], tone))
