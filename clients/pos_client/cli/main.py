"""The command lines of `pos-terminal` and `pos-wallet`, their help texts, and `activate`."""

import argparse
import asyncio
import io
import os
import string
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.errors import PosError

from ..device.activation import activate, request_id_for
from ..device.credentials import device_path, parse_server_url
from ..errors import CredentialsError
from . import till_commands, wallet_commands, wallet_requests
from .console import ExitCode, UsageError, command_line, print_error, print_line, printable

_TERMINAL_EXAMPLES = """
examples:
  pos-terminal activate --server https://pay.example.com 4F7K-20QX-M8ZD-9T3C
  pos-terminal till
  pos-terminal scan --amount 12.50
  pos-terminal scan --amount 12.50 --image photo.jpg
  pos-terminal scan --amount 12.50 --reference order-17 --code 772000… --json
  pos-terminal query --reference order-17
  pos-terminal cancel --reference order-17
  pos-terminal refund --reference order-17 --amount 3.00
  pos-terminal recent
  pos-terminal shift open --operator Alice --cash 100.00
  pos-terminal shift close --cash 152.50

exit codes:
  0    scan, query: approved; cancel: canceled or never charged; refund: made
  1    scan, query: declined, canceled or expired
  2    invalid arguments or input
  3    unknown: no answer, or (query) the payment is still pending. The next start
       of till, scan, cancel or refund retries and prints the outcome; cancel
       resolves it immediately
  4    not done (not activated, cannot connect, refused, no such payment):
       nothing was charged, canceled or refunded
  130  interrupted

A device has one connection: these commands disconnect a till that runs with the
same --device. Activate a second device to use both at the same time.

Requests without an outcome, including the codes of scans, are kept in a private
file next to the credentials (NAME.journal) until their outcome is known.
"""
_WALLET_EXAMPLES = """
examples:
  pos-wallet activate --server https://pay.example.com 8R2M-55VD-KQ0A-7H1N
  pos-wallet show
  pos-wallet pin
  pos-wallet history
  pos-wallet code --png code.png
  pos-terminal scan --amount 3.20 --code $(pos-wallet code)

exit codes:
  0    done; confirm: paid
  1    confirm: not paid (declined, canceled, expired, wrong PIN)
  2    invalid arguments or input
  3    unknown: no answer arrived; a repeat is safe
  4    not done (not activated, revoked, cannot connect, refused, no pending payment)
  130  interrupted

PINs are not echoed. If the standard input is not a terminal, each PIN is one
line of it: pin reads the old PIN first, if there is one, then the new one.

A device has one connection: these commands disconnect a show that runs with the
same --device. show itself asks for the PIN of a payment that requires it.
"""
_LANGUAGE_CHARS = {*string.ascii_letters, *string.digits, "-"}
_LANGUAGE_CHARS_MAX = 35
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def terminal_main(argv: Sequence[str] | None = None) -> int:
    """Run the `pos-terminal` command and return its exit code."""
    parser = _parser("pos-terminal", "A cashier's till: scan payment codes and see the result.", _TERMINAL_EXAMPLES)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_activate(commands, DeviceKind.TERMINAL)
    till_commands.add_to(commands, _session_options(DeviceKind.TERMINAL))
    return _run(parser, argv)


def wallet_main(argv: Sequence[str] | None = None) -> int:
    """Run the `pos-wallet` command and return its exit code."""
    parser = _parser("pos-wallet", "A customer's wallet: show payment codes and confirm payments.", _WALLET_EXAMPLES)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_activate(commands, DeviceKind.WALLET)
    wallet_commands.add_to(commands, _session_options(DeviceKind.WALLET))
    wallet_requests.add_to(commands, _session_options(DeviceKind.WALLET))
    return _run(parser, argv)


def _parser(prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _device_option(kind: DeviceKind) -> argparse.ArgumentParser:
    option = argparse.ArgumentParser(add_help=False)
    option.add_argument(
        "--device",
        default=kind.value,
        metavar="NAME|PATH",
        help=f"the device to use, if this computer has several: a name or a credentials file (default {kind.value})",
    )
    return option


def _session_options(kind: DeviceKind) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False, parents=[_device_option(kind)])
    options.add_argument(
        "--language", type=_language, default="en", metavar="TAG", help="language of the server's texts (default en)"
    )
    return options


def _language(text: str) -> str:
    if not text or len(text) > _LANGUAGE_CHARS_MAX or not set(text) <= _LANGUAGE_CHARS:
        raise argparse.ArgumentTypeError("a language looks like en or zh-CN")
    return text


def _add_activate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", kind: DeviceKind) -> None:
    parser = commands.add_parser(
        "activate",
        parents=[_device_option(kind)],
        help="activate this computer as a device with a one-time code",
        allow_abbrev=False,
    )
    parser.add_argument("--server", required=True, metavar="URL", help="the server, such as https://pay.example.com")
    parser.add_argument("--replace", action="store_true", help="overwrite the credentials of an earlier activation")
    parser.add_argument("code", metavar="CODE", help="the activation code from the server's operator")
    parser.set_defaults(command=lambda args: _activate(args, kind))


def _activate(args: argparse.Namespace, kind: DeviceKind) -> int:
    path = device_path(args.device)
    if path.exists() and not args.replace:
        raise CredentialsError(f"{path} already exists: choose another --device, or overwrite it with --replace")
    try:
        server = parse_server_url(args.server)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if server.startswith("http:") and urlsplit(server).hostname not in _LOOPBACK:
        print_error("warning: over http:// anyone on the network can read this device's key: use https://")
    request_path = path.with_name("activation-request.json")
    try:
        credentials = asyncio.run(activate(server, args.code, request_id=request_id_for(args.code, request_path)))
    except ValueError:
        raise UsageError("an activation code looks like 4F7K-20QX-M8ZD-9T3C") from None
    if credentials.kind is not kind:
        other = credentials.kind.value
        raise CredentialsError(f"this code activates a {other}: run `pos-{other} activate` with the same code")
    credentials.save(path)
    request_path.unlink(missing_ok=True)
    print_line(f"Activated {kind.value} {credentials.number}, {printable(credentials.name)} ({credentials.currency}).")
    print_line(f"Its key is in {path}: keep that file private.")
    print_line(f"Next: {command_line(kind, args.device, 'till' if kind is DeviceKind.TERMINAL else 'show')}")
    return ExitCode.OK


def _run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # for invalid bytes from a scanner, and terminals without Unicode
    args = parser.parse_args(argv)
    try:
        return int(args.command(args))
    except UsageError as error:
        print_error(f"{parser.prog}: {error}")
        return ExitCode.USAGE
    except PosError as error:
        print_error(f"{parser.prog}: {error}")
        return ExitCode.NOT_DONE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # the reader of the output is gone, and Python's flush at exit would fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
