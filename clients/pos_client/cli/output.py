"""How the commands of `pos-terminal` say what became of a request, to people and, with --json, to scripts."""

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
from .console import ExitCode, complain, say


def say_json(**fields: object) -> None:
    """One line of JSON."""
    say(orjson.dumps(fields).decode())


def fields_of(
    message: TerminalPaymentResult | PaymentPending | TerminalRefundResult | ShiftReport,
) -> dict[str, object]:
    """What a message says, without what only the connection needs."""
    fields: dict[str, object] = orjson.loads(encode(message))
    return {name: value for name, value in fields.items() if name not in ("type", "reply_to")}


def say_unknown(args: argparse.Namespace, error: RequestUnanswered, advice: str = "", **more: object) -> int:
    """It may have been done or not; `advice` is how to find out, `more` goes into the JSON."""
    if args.json:
        say_json(outcome="unknown", reason=error.reason, **more)
    complain(f"{error}. {advice}".rstrip())
    return ExitCode.UNKNOWN


def say_not_done(args: argparse.Namespace, error: ClientError, **more: object) -> NoReturn:
    """It was not done, and `error`, which is raised again, says why."""
    if args.json:
        say_json(outcome="not_done", reason=str(error), code=getattr(error, "code", None), **more)
    raise error
