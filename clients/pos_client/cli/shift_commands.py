"""`pos-terminal shift`: open a shift, close it, and print its report."""

import argparse

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.protocol.server_messages import ShiftReport

from ..device.credentials import Credentials, device_path
from ..device.requests import REQUEST_TIMEOUT_S
from ..errors import ClientError, RequestUnanswered
from . import inputs
from .console import ExitCode, UsageError, command_line, print_error, print_line, printable
from .output import message_fields, print_json, report_not_done, report_unknown
from .till_session import TillSession


def add_to(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", device_option: argparse.ArgumentParser
) -> None:
    """Add `shift` to `pos-terminal`."""
    shift = commands.add_parser("shift", help="open or close a shift, print its report", allow_abbrev=False)
    shift.description = "A shift records who works at this till. Its report totals the payments and the cash."
    actions = shift.add_subparsers(metavar="ACTION", required=True)

    opening = actions.add_parser("open", parents=[device_option], help="open a shift", allow_abbrev=False)
    opening.add_argument("--operator", required=True, metavar="NAME", help="the person who works at the till")
    opening.add_argument("--cash", default="0", metavar="AMOUNT", help="cash in the drawer, such as 100.00 (default 0)")
    opening.add_argument("--shift-id", type=inputs.identifier, metavar="ID", help="repeat an unanswered open")

    closing = actions.add_parser(
        "close", parents=[device_option], help="close a shift and print its Z-report", allow_abbrev=False
    )
    closing.add_argument("--cash", metavar="AMOUNT", help="cash counted in the drawer (default: not counted)")

    report = actions.add_parser("report", parents=[device_option], help="print the report", allow_abbrev=False)
    report.description = "Print the X-report of the open shift, or the report of an earlier shift."
    for action, run in ((opening, _open), (closing, _close), (report, _report)):
        action.set_defaults(command=run)
        if action is not opening:
            action.add_argument(
                "--shift-id", type=inputs.identifier, metavar="ID", help="the shift (default: the open one)"
            )
        inputs.add_timeout(action, REQUEST_TIMEOUT_S)
        action.add_argument("--json", action="store_true", help="print the report as one line of JSON")


def _open(args: argparse.Namespace) -> int:
    credentials = _credentials(args)
    cash_minor = inputs.cash(args.cash, credentials.currency)
    try:
        with TillSession(credentials, None, language=args.language) as till:
            report = till.wait(
                till.client.open_shift(args.operator, cash_minor, shift_id=args.shift_id, timeout_s=args.timeout)
            )
    except ValueError as error:
        raise UsageError(str(error)) from None
    except RequestUnanswered as error:
        query = command_line(DeviceKind.TERMINAL, args.device, "shift report")
        return report_unknown(args, error, f"To find out whether the shift is open: `{query}`.")
    except ClientError as error:
        report_not_done(args, error)
    return _print_report(args, report)


def _close(args: argparse.Namespace) -> int:
    credentials = _credentials(args)
    cash_minor = None if args.cash is None else inputs.cash(args.cash, credentials.currency)
    shift_id = args.shift_id
    try:
        with TillSession(credentials, None, language=args.language) as till:
            if shift_id is None:
                shift_id = till.wait(till.client.shift_report(timeout_s=args.timeout)).shift_id
            report = till.wait(till.client.close_shift(shift_id, cash_minor, timeout_s=args.timeout))
    except RequestUnanswered as error:
        close = command_line(DeviceKind.TERMINAL, args.device, f"shift close --shift-id {shift_id}")
        return report_unknown(args, error, f"To retry: `{close}`, with the same cash." if shift_id else "")
    except ClientError as error:
        report_not_done(args, error)
    return _print_report(args, report)


def _report(args: argparse.Namespace) -> int:
    try:
        with TillSession(_credentials(args), None, language=args.language) as till:
            report = till.wait(till.client.shift_report(args.shift_id, timeout_s=args.timeout))
    except RequestUnanswered as error:
        return report_unknown(args, error)
    except ClientError as error:
        report_not_done(args, error)
    return _print_report(args, report)


def _credentials(args: argparse.Namespace) -> Credentials:
    return Credentials.load(device_path(args.device), DeviceKind.TERMINAL)


def _print_report(args: argparse.Namespace, report: ShiftReport) -> int:
    if args.json:
        print_json(outcome="done", **message_fields(report))
    else:
        print_line("\n".join(printable(line) for line in report.text.split("\n")))
        print_error(f"shift {report.shift_id}")
    return ExitCode.OK
