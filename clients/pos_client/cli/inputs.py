"""Parsers for typed input and command-line arguments: amounts, codes, order numbers, ids, durations."""

import argparse
from datetime import UTC, datetime
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from pos_server.core.money import parse_amount
from pos_server.core.protocol.fields import Reference

from .console import UsageError

TIMEOUT_S_MAX = 3600.0
_AMOUNT_CHARS_MAX = 20  # shorter than a payment code, so that no error repeats a code

_reference: TypeAdapter[str] = TypeAdapter(Reference)


def digits(text: str) -> str:
    """Return a typed code without spaces."""
    return "".join(text.split())


def amount(text: str, currency: str, *, least_minor: int = 1) -> int:
    """Parse an amount such as 12.50 and return it in minor units of the currency. Raises UsageError."""
    if len(text) > _AMOUNT_CHARS_MAX:
        raise UsageError("this is not an amount: enter it as 12.50")
    try:
        return parse_amount(text, currency, least_minor=least_minor)
    except ValueError as error:
        raise UsageError(str(error)) from None


def cash(text: str, currency: str) -> int:
    """Parse the cash in a drawer, zero or more, and return it in minor units. Raises UsageError."""
    return amount(text, currency, least_minor=0)


def new_reference(terminal_number: int) -> str:
    """Return an order number made of the terminal number and the UTC time in milliseconds."""
    now = datetime.now(UTC)
    return f"{terminal_number}-{now:%y%m%d-%H%M%S}{now.microsecond // 1000:03d}"


def reference(text: str) -> str:
    """Parse an order number, for argparse."""
    try:
        return _reference.validate_python(text)
    except ValidationError:
        raise argparse.ArgumentTypeError("an order number has 1 to 64 printable ASCII characters") from None


def seconds(text: str) -> float:
    """Parse a number of seconds, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= TIMEOUT_S_MAX:
        raise argparse.ArgumentTypeError(f"the timeout is a number of seconds, above 0 and up to {TIMEOUT_S_MAX:g}")
    return value


def identifier(text: str) -> UUID:
    """Parse the id of a payment, a refund or a shift, for argparse."""
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError("an id looks like 019cae79-5378-7645-91fc-d6f07823cb87") from None


def add_timeout(parser: argparse.ArgumentParser, default_s: float) -> None:
    """Add the option --timeout to a command."""
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=default_s,
        metavar="SECONDS",
        help=f"maximum wait for the server's answer (default {default_s:g})",
    )
