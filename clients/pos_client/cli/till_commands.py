"""The one-shot commands of `pos-terminal`: scan, query, cancel, refund, recent."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.money import format_amount
from pos_server.core.payments.payment import Purpose, Status
from pos_server.core.protocol.client_messages import PAGE_MAX
from pos_server.core.protocol.server_messages import PaymentPending, TerminalPaymentResult

from ..device.credentials import Credentials, device_path, journal_path
from ..device.requests import REQUEST_TIMEOUT_S
from ..errors import ClientError, OutcomeUnknown, RefundUnknown, RequestUnanswered
from ..terminal.open_payments import SCAN_TIMEOUT_S
from . import inputs, shift_commands
from .console import ExitCode, UsageError, clock_time, command_line, print_error, print_line, printable
from .output import message_fields, print_json, report_not_done, report_unknown
from .till_screen import run_till
from .till_session import TillSession

_EXIT_CODES: dict[str, ExitCode] = {Status.APPROVED: ExitCode.OK, Status.PENDING: ExitCode.UNKNOWN}


def add_to(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", device_option: argparse.ArgumentParser
) -> None:
    """Add these commands to `pos-terminal`."""
    _add_scan(_command(commands, device_option, "scan", "take one payment and exit with its outcome", _scan))
    till = _command(commands, device_option, "till", "take payments one after the other", run_till)
    till.description = (
        "Prompt for an amount, then for the scanned code, repeatedly. A failure stays in view until Enter."
    )

    query = _command(commands, device_option, "query", "print the state of a payment", _query)
    _add_target(query)
    inputs.add_timeout(query, REQUEST_TIMEOUT_S)

    cancel = _command(
        commands, device_option, "cancel", "cancel a payment, whether or not it reached the server", _cancel
    )
    cancel.description = (
        "Cancel a payment. The request is resent until it is answered; without an answer, the next start resumes it."
    )
    _add_target(cancel)
    inputs.add_timeout(cancel, SCAN_TIMEOUT_S)

    refund = _command(commands, device_option, "refund", "refund a payment in part or in full", _refund)
    _add_target(refund)
    refund.add_argument("--amount", required=True, help="the amount, such as 3.00, in the terminal's currency")
    refund.add_argument(
        "--refund-id", type=inputs.identifier, metavar="ID", help="repeat a refund whose outcome is unknown"
    )
    inputs.add_timeout(refund, SCAN_TIMEOUT_S)

    recent = _command(commands, device_option, "recent", "list this till's last payments, latest change first", _recent)
    recent.add_argument("--limit", type=int, default=10, choices=range(1, PAGE_MAX + 1), metavar=f"1..{PAGE_MAX}")
    inputs.add_timeout(recent, REQUEST_TIMEOUT_S)

    shift_commands.add_to(commands, device_option)
    for command in (query, cancel, refund, recent):
        command.add_argument("--json", action="store_true", help="print the outcome as one line of JSON")


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    device_option: argparse.ArgumentParser,
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, parents=[device_option], help=text, allow_abbrev=False)
    parser.set_defaults(command=run)
    return parser


def _add_scan(scan: argparse.ArgumentParser) -> None:
    scan.description = "Take one payment. Without --code or --image, the code is one line of the standard input."
    scan.add_argument("--amount", required=True, help="the amount, such as 12.50, in the terminal's currency")
    scan.add_argument("--reference", type=inputs.reference, help="your order number (default: a new one)")
    source = scan.add_mutually_exclusive_group()
    source.add_argument("--code", metavar="DIGITS", help="the 24 digits of the payment code")
    source.add_argument("--image", type=Path, metavar="FILE", help="a photo of the QR code or barcode")
    scan.add_argument(
        "--purpose",
        choices=[purpose.value for purpose in Purpose],
        default=Purpose.SALE.value,
        help="a sale, a top-up with the customer's cash, or a withdrawal in cash (default sale)",
    )
    scan.add_argument("--typed", action="store_true", help="the code was typed by hand, so the PIN is required")
    inputs.add_timeout(scan, SCAN_TIMEOUT_S)
    scan.add_argument("--json", action="store_true", help="print the outcome as one line of JSON")


def _add_target(parser: argparse.ArgumentParser) -> None:
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--payment-id", type=inputs.identifier, metavar="ID", help="the payment's id")
    target.add_argument("--reference", type=inputs.reference, help="the order number")


def _scan(args: argparse.Namespace) -> int:
    credentials = Credentials.load(device_path(args.device), DeviceKind.TERMINAL)
    amount_minor = inputs.amount(args.amount, credentials.currency)
    reference = args.reference or inputs.new_reference(credentials.number)
    code = _scanned_code(args)
    try:
        with TillSession(credentials, journal_path(args.device), language=args.language) as till:
            till.print_recovered()

            def on_pending(pending: PaymentPending) -> None:
                till.waits_for_customer = True
                print_error(f"order {reference}: {pending.text}")

            result = till.wait(
                till.client.scan(
                    code=code,
                    amount_minor=amount_minor,
                    reference=reference,
                    typed=args.typed,
                    purpose=args.purpose,
                    timeout_s=args.timeout,
                    on_pending=on_pending,
                )
            )
    except ValueError as error:
        raise UsageError(str(error)) from None
    except OutcomeUnknown as error:
        if args.json:
            print_json(outcome="unknown", payment_id=error.payment_id, reference=reference, reason=error.reason)
        query, cancel = (
            command_line(DeviceKind.TERMINAL, args.device, f"{action} --payment-id {error.payment_id}")
            for action in ("query", "cancel")
        )
        print_error(f"{error}. To find out: `{query}`. To cancel it: `{cancel}`.")
        return ExitCode.UNKNOWN
    except ClientError as error:
        report_not_done(args, error, reference=reference)
    except KeyboardInterrupt:
        print_error(
            f"interrupted: the outcome of order {reference} is unknown. The next start cancels it, unless it was paid"
        )
        raise
    return _print_payment(args, result)


def _query(args: argparse.Namespace) -> int:
    credentials = Credentials.load(device_path(args.device), DeviceKind.TERMINAL)
    try:
        # A journal would resend open scans, and a query must not charge.
        with TillSession(credentials, None, language=args.language) as till:
            answer = till.wait(
                till.client.query(payment_id=args.payment_id, reference=args.reference, timeout_s=args.timeout)
            )
    except RequestUnanswered as error:
        return report_unknown(args, error)
    except ClientError as error:
        report_not_done(args, error)
    return _print_payment(args, answer)


def _cancel(args: argparse.Namespace) -> int:
    credentials = Credentials.load(device_path(args.device), DeviceKind.TERMINAL)
    try:
        with TillSession(credentials, journal_path(args.device), language=args.language) as till:
            result = till.wait(
                till.client.cancel(payment_id=args.payment_id, reference=args.reference, timeout_s=args.timeout)
            )
    except RequestUnanswered as error:
        return report_unknown(args, error, "The next start resumes the cancel.")
    except ClientError as error:
        report_not_done(args, error)
    _print_payment(args, result)
    return ExitCode.OK


def _refund(args: argparse.Namespace) -> int:
    credentials = Credentials.load(device_path(args.device), DeviceKind.TERMINAL)
    amount_minor = inputs.amount(args.amount, credentials.currency)
    payment_id = args.payment_id
    try:
        with TillSession(credentials, journal_path(args.device), language=args.language) as till:
            till.print_recovered()
            if payment_id is None:
                payment_id = till.wait(till.client.query(reference=args.reference, timeout_s=args.timeout)).payment_id
            refund = till.client.refund(payment_id, amount_minor, args.refund_id, timeout_s=args.timeout)
            result = till.wait(refund)
    except ValueError as error:
        raise UsageError(str(error)) from None
    except RefundUnknown as error:
        advice = f"The next start finds out. Or retry with --refund-id {error.refund_id}: it is never made twice."
        return report_unknown(args, error, advice, refund_id=error.refund_id, payment_id=payment_id)
    except ClientError as error:
        report_not_done(args, error)
    if args.json:
        print_json(outcome="refunded", **message_fields(result))
    else:
        refundable = format_amount(result.refundable_minor, result.currency)
        print_line(
            f"REFUNDED {format_amount(result.amount_minor, result.currency)}, order {printable(result.reference)}"
        )
        print_line(f"{refundable} may still be refunded. Refund {result.refund_id}")
    return ExitCode.OK


def _recent(args: argparse.Namespace) -> int:
    credentials = Credentials.load(device_path(args.device), DeviceKind.TERMINAL)
    with TillSession(credentials, None, language=args.language) as till:
        payments = till.wait(till.client.recent(args.limit, timeout_s=args.timeout))
    for payment in payments:
        if args.json:
            print_json(outcome=_status(payment), **message_fields(payment))
        else:
            print_line(f"{clock_time(payment.decided_at_ms)} {_line(payment)}, {payment.payment_id}")
    return ExitCode.OK


def _scanned_code(args: argparse.Namespace) -> str:
    if args.image is not None:
        from ..images import read_code  # needs the demo extra

        return read_code(args.image)
    if args.code is None and sys.stdin.isatty():
        sys.stderr.write("Scan the customer's code: ")
        sys.stderr.flush()
    code = inputs.digits(sys.stdin.readline() if args.code is None else args.code)
    if not code:
        raise UsageError("no code was scanned: scan one, or use --code or --image")
    return code


def _print_payment(args: argparse.Namespace, payment: TerminalPaymentResult | PaymentPending) -> int:
    """Print the state of a payment and return its exit code."""
    status = _status(payment)
    if args.json:
        print_json(outcome=status, **message_fields(payment))
    else:
        print_line(_line(payment))
        is_plain_sale = status == Status.APPROVED and payment.purpose == Purpose.SALE
        if isinstance(payment, PaymentPending) or not is_plain_sale or payment.refunded_minor:
            reason = getattr(payment, "decline_code", None) or status
            print_line(f"{printable(payment.text)} ({printable(reason)})")
    return _EXIT_CODES.get(status, ExitCode.DECLINED)


def _status(payment: TerminalPaymentResult | PaymentPending) -> str:
    return Status.PENDING.value if isinstance(payment, PaymentPending) else payment.status


def _line(payment: TerminalPaymentResult | PaymentPending) -> str:
    amount = "" if payment.amount_minor is None else f" {format_amount(payment.amount_minor, payment.currency)}"
    order = "never scanned" if payment.reference is None else f"order {printable(payment.reference)}"
    return f"{printable(_status(payment)).upper()}{amount}, {order}"
