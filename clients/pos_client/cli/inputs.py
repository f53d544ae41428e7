"""What people type, and what stands for it on a command line: amounts, codes, order numbers, ids, times."""

import argparse
from datetime import UTC, datetime
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from pos_server.core.money import parse_amount
from pos_server.core.protocol.fields import Reference

from .console import UsageError

TIMEOUT_S_MAX = 3600.0
_AMOUNT_CHARS_MAX = 20  # shorter than a payment code, so that none is repeated in an error

_reference: TypeAdapter[str] = TypeAdapter(Reference)


def digits(text: str) -> str:
    """A code without the spaces that people type."""
    return "".join(text.split())


def amount(text: str, currency: str, *, least_minor: int = 1) -> int:
    """An amount such as 12.50 in minor units of the currency. Raises UsageError."""
    if len(text) > _AMOUNT_CHARS_MAX:
        raise UsageError("that is not an amount: write it as 12.50")
    try:
        return parse_amount(text, currency, least_minor=least_minor)
    except ValueError as error:
        raise UsageError(str(error)) from None


def cash(text: str, currency: str) -> int:
    """What is in a drawer, in minor units: an amount, or nothing at all. Raises UsageError."""
    return amount(text, currency, least_minor=0)


def new_reference(terminal_number: int) -> str:
    """An order number for a shop that has none: the terminal and the time, in UTC, to the millisecond."""
    now = datetime.now(UTC)
    return f"{terminal_number}-{now:%y%m%d-%H%M%S}{now.microsecond // 1000:03d}"


def reference(text: str) -> str:
    """An order number, for argparse."""
    try:
        return _reference.validate_python(text)
    except ValidationError:
        raise argparse.ArgumentTypeError("an order number is 1 to 64 printable ASCII characters") from None


def seconds(text: str) -> float:
    """A number of seconds, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= TIMEOUT_S_MAX:
        raise argparse.ArgumentTypeError(f"a number of seconds up to {TIMEOUT_S_MAX:g}")
    return value


def identifier(text: str) -> UUID:
    """A payment's, a refund's or a shift's id, for argparse."""
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError("an id is written like 019cae79-5378-7645-91fc-d6f07823cb87") from None


def add_timeout(parser: argparse.ArgumentParser, default_s: float) -> None:
    """The option --timeout of a command."""
    parser.add_argument("--timeout", type=seconds, default=default_s, metavar="SECONDS", help=f"default {default_s:g}")
