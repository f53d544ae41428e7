"""Outcomes of requests, printed by `pos-terminal` for people or, with --json, for scripts."""

import argparse
from typing import NoReturn

import orjson

from pos_server.core.protocol.codec import encode
from pos_server.core.protocol.server_messages import (
    PaymentPending,
    ShiftReport,
    TerminalPaymentResult,
    TerminalRefundResult,
)

from ..errors import ClientError, RequestUnanswered
from .console import ExitCode, print_error, print_line


def print_json(**fields: object) -> None:
    """Print the fields as one line of JSON."""
    print_line(orjson.dumps(fields).decode())


def message_fields(
    message: TerminalPaymentResult | PaymentPending | TerminalRefundResult | ShiftReport,
) -> dict[str, object]:
    """Return the fields of a message, without those of the protocol."""
    fields: dict[str, object] = orjson.loads(encode(message))
    return {name: value for name, value in fields.items() if name not in ("type", "reply_to")}


def report_unknown(args: argparse.Namespace, error: RequestUnanswered, advice: str = "", **fields: object) -> int:
    """Print an unknown outcome and return its exit code. `advice` says how to find out; `fields` go into the JSON."""
    if args.json:
        print_json(outcome="unknown", reason=error.reason, **fields)
    print_error(f"{error}. {advice}".rstrip())
    return ExitCode.UNKNOWN


def report_not_done(args: argparse.Namespace, error: ClientError, **fields: object) -> NoReturn:
    """Print a request that was not done, with `fields` in the JSON, and raise `error` again."""
    if args.json:
        print_json(outcome="not_done", reason=str(error), code=getattr(error, "code", None), **fields)
    raise error
