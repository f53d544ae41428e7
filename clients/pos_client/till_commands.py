"""`pos-terminal scan` and `pos-terminal till`."""

import argparse
import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import orjson
from pydantic import TypeAdapter, ValidationError

from pos_server.core.device_keys import DeviceKind
from pos_server.core.messages import Reference, TerminalPaymentResult
from pos_server.core.money import format_amount, parse_amount
from pos_server.core.payments import Status

from .console import ExitCode, Tone, UsageError, banner, complain, printable, say
from .credentials import Credentials, device_path
from .errors import ClientError, OutcomeUnknown, ScanNotDone, ScanRefused
from .open_payments import SCAN_TIMEOUT_S
from .till_session import Till

GREETING_TIMEOUT_S = 5.0
TIMEOUT_S_MAX = 3600.0
_AMOUNT_CHARS_MAX = 20  # shorter than a payment code, so that none is repeated in an error

_reference: TypeAdapter[str] = TypeAdapter(Reference)


def add_to(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", device_option: argparse.ArgumentParser
) -> None:
    """Add these commands to `pos-terminal`."""
    scan = commands.add_parser(
        "scan",
        parents=[device_option],
        help="take one payment, then exit with its outcome",
        description="Take one payment. Without --code and --image it reads one line: a USB scanner types the code.",
        allow_abbrev=False,
    )
    scan.add_argument("--amount", required=True, help="what to charge, such as 12.50, in the terminal's currency")
    scan.add_argument("--reference", type=_reference_argument, help="your order number; one is made if left out")
    source = scan.add_mutually_exclusive_group()
    source.add_argument("--code", metavar="DIGITS", help="the 24 digits of the payment code")
    source.add_argument("--image", type=Path, metavar="FILE", help="a photo of the QR code or barcode")
    scan.add_argument(
        "--timeout", type=_seconds, default=SCAN_TIMEOUT_S, metavar="SECONDS", help=f"default {SCAN_TIMEOUT_S:g}"
    )
    scan.add_argument("--json", action="store_true", help="print the outcome as one line of JSON")
    scan.set_defaults(command=_scan)

    till = commands.add_parser(
        "till",
        parents=[device_option],
        help="take payments one after the other",
        description="Ask for an amount, then for the scanned code, again and again. What failed stays until Enter.",
        allow_abbrev=False,
    )
    till.set_defaults(command=_till)


def _scan(args: argparse.Namespace) -> int:
    credentials = Credentials.load(device_path(args.device), DeviceKind.TERMINAL)
    amount_minor = _amount(args.amount, credentials.currency)
    reference = args.reference or _new_reference(credentials.number)
    code = _scanned_code(args)
    try:
        with Till(credentials, _journal(args.device)) as till:
            till.report_recovered()
            scan = till.client.scan(code=code, amount_minor=amount_minor, reference=reference, timeout_s=args.timeout)
            result = till.wait(scan)
    except ValueError as error:
        raise UsageError(str(error)) from None
    except OutcomeUnknown as error:
        if args.json:
            _say_json(outcome="unknown", payment_id=error.payment_id, reference=reference, reason=error.reason)
        complain(f"{error}. To find out, scan again with --reference {reference}: an order is never charged twice.")
        return ExitCode.UNKNOWN
    except ClientError as error:
        if args.json:
            _say_json(outcome="not_done", reference=reference, reason=str(error), code=getattr(error, "code", None))
        raise
    except KeyboardInterrupt:
        complain(f"interrupted: the outcome of order {reference} is unknown")
        raise
    approved = result.status == Status.APPROVED
    if args.json:
        _say_json(outcome="approved" if approved else "declined", **_fields(result))
    else:
        amount = format_amount(result.amount_minor or amount_minor, result.currency)
        say(f"{printable(result.status).upper()} {amount}, order {printable(result.reference or reference)}")
        if not approved:
            say(f"{printable(result.text)} ({printable(result.decline_code or result.status)})")
    return ExitCode.OK if approved else ExitCode.DECLINED


def _till(args: argparse.Namespace) -> int:
    credentials = Credentials.load(device_path(args.device), DeviceKind.TERMINAL)
    with Till(credentials, _journal(args.device)) as till:
        try:
            ready = till.wait(asyncio.wait_for(till.client.ready(), GREETING_TIMEOUT_S))
            say(printable(f"{ready.merchant_name}, {ready.store_name}: terminal {ready.terminal_number}."))
        except TimeoutError:
            complain("not connected yet: sales can be entered and wait for the server.")
        till.report_recovered()
        say("Ctrl-C ends.")
        try:
            while till.client.stopped is None:
                till.report_late()
                _sell(till)
        except EOFError:
            say()
            return ExitCode.OK
        raise till.client.stopped


def _sell(till: Till) -> None:
    """One sale: an amount, then scans until it is paid or given up. Raises EOFError when the input ends."""
    currency = till.client.credentials.currency
    say()
    try:
        amount_minor = _amount(input(f"Amount in {currency}: "), currency)
    except UsageError as error:
        say(f"{error}")
        return
    reference = _new_reference(till.client.credentials.number)
    again = True
    while again:
        code = _digits(input("Scan the customer's code (Enter alone cancels): "))
        if not code:
            return
        again = _pay(till, code, amount_minor, reference)


def _pay(till: Till, code: str, amount_minor: int, reference: str) -> bool:
    """Take one scan to an end that the cashier has seen; returns whether the same sale may be scanned again."""
    amount = format_amount(amount_minor, till.client.credentials.currency)
    payment_id: UUID | None = None
    while True:
        scan = till.client.scan(
            code=code,
            amount_minor=amount_minor,
            reference=reference,
            payment_id=payment_id,
            timeout_s=SCAN_TIMEOUT_S,
        )
        try:
            result = till.wait(scan)
        except OutcomeUnknown as error:
            payment_id = error.payment_id
            texts = ["Do not hand out the goods and do not charge again.", error.reason, f"Order {reference}"]
            say(banner("UNKNOWN", [amount, *texts], Tone.OPEN))
            if input("Enter asks again (it never charges twice), x leaves it unknown: ").strip():
                return False
        except (ScanNotDone, ScanRefused, ValueError) as error:
            reason = error.reason if isinstance(error, ScanNotDone) else str(error)
            say(banner("NOT CHARGED", [amount, reason], Tone.BAD))
            input("Press Enter to go on. ")
            return isinstance(error, ScanNotDone | ValueError)
        except KeyboardInterrupt:
            complain(f"interrupted: the outcome of order {reference} is unknown")
            raise
        else:
            if result.status == Status.APPROVED:
                say(banner("APPROVED", [amount, f"Order {reference}"], Tone.GOOD))
                return False
            say(banner(result.status.upper(), [amount, result.text, f"Order {reference}"], Tone.BAD))
            input("Press Enter to go on. ")
            return result.retryable


def _journal(device: str) -> Path:
    return device_path(device).with_suffix(".journal")


def _scanned_code(args: argparse.Namespace) -> str:
    if args.image is not None:
        from .images import read_code  # needs the demo extra

        return read_code(args.image)
    if args.code is None and sys.stdin.isatty():
        sys.stderr.write("Scan the customer's code: ")
        sys.stderr.flush()
    code = _digits(sys.stdin.readline() if args.code is None else args.code)
    if not code:
        raise UsageError("no code was scanned")
    return code


def _digits(text: str) -> str:
    return "".join(text.split())


def _amount(text: str, currency: str) -> int:
    if len(text) > _AMOUNT_CHARS_MAX:
        raise UsageError("that is not an amount: write it as 12.50")
    try:
        return parse_amount(text, currency)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _new_reference(terminal_number: int) -> str:
    """An order number for a shop that has none: the terminal and the time, in UTC, to the millisecond."""
    now = datetime.now(UTC)
    return f"{terminal_number}-{now:%y%m%d-%H%M%S}{now.microsecond // 1000:03d}"


def _reference_argument(text: str) -> str:
    try:
        return _reference.validate_python(text)
    except ValidationError:
        raise argparse.ArgumentTypeError("an order number is 1 to 64 printable ASCII characters") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= TIMEOUT_S_MAX:
        raise argparse.ArgumentTypeError(f"a number of seconds up to {TIMEOUT_S_MAX:g}")
    return seconds


def _fields(result: TerminalPaymentResult) -> dict[str, object]:
    names = ("payment_id", "reference", "amount_minor", "currency", "decline_code", "text", "retryable", "paid_by")
    return {name: getattr(result, name) for name in (*names, "version", "decided_at_ms")}


def _say_json(**fields: object) -> None:
    say(orjson.dumps(fields).decode())
