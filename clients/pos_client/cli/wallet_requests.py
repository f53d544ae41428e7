"""`pos-wallet pin`, `confirm`, `reject` and `history`: the commands that send one request and exit."""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar
from uuid import UUID

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.money import format_amount
from pos_server.core.payments.payment import Status
from pos_server.core.protocol.client_messages import PAGE_MAX
from pos_server.core.protocol.codec import encode
from pos_server.core.protocol.server_messages import ConfirmationRequired, HistoryPage, WalletPaymentResult

from ..device.requests import REQUEST_TIMEOUT_S
from ..errors import ClientError, RequestUnanswered
from ..wallet.client import WalletClient
from . import inputs
from .console import ExitCode, UsageError, command_line, print_error, print_line, printable
from .keyboard import hidden_line
from .wallet_commands import load_wallet

T = TypeVar("T")


def add_to(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", device_option: argparse.ArgumentParser
) -> None:
    """Add these commands to `pos-wallet`."""

    def command(name: str, text: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, parents=[device_option], help=text, allow_abbrev=False)
        parser.set_defaults(command=run)
        parser.add_argument(
            "--timeout",
            type=inputs.seconds,
            default=REQUEST_TIMEOUT_S,
            metavar="SECONDS",
            help=f"maximum wait for the server (default {REQUEST_TIMEOUT_S:g})",
        )
        return parser

    command("pin", "set or change the wallet's PIN", _pin)
    for decision in (
        command("confirm", "confirm a payment that waits for the PIN", _confirm),
        command("reject", "reject a payment that waits for the PIN", _reject),
    ):
        decision.add_argument(
            "--payment-id", type=inputs.identifier, metavar="ID", help="the payment (default: the oldest)"
        )
    history = command("history", "list the payments, latest change first", _history)
    history.add_argument("--limit", type=int, default=20, choices=range(1, PAGE_MAX + 1), metavar=f"1..{PAGE_MAX}")
    history.add_argument("--cursor", help="start after an earlier page, which printed this cursor")
    history.add_argument("--json", action="store_true", help="print each payment as one line of JSON")


def _pin(args: argparse.Namespace) -> int:
    async def change(wallet: WalletClient) -> None:
        ready = await _within(args, wallet, wallet.ready())
        old_pin = await _secret("Current PIN: ") if ready.pin_set else None
        new_pin = await _secret("New PIN, 4 to 12 digits: ")
        if sys.stdin.isatty() and await _secret("New PIN again: ") != new_pin:
            raise UsageError("the two new PINs differ: nothing was changed")
        await wallet.set_pin(new_pin, old_pin, timeout_s=args.timeout)

    return _run(args, change) or _done("The PIN is set.")


def _confirm(args: argparse.Namespace) -> int:
    async def confirm(wallet: WalletClient) -> int:
        question = await _question(args, wallet)
        if not wallet.pin_set:
            raise ClientError(
                f"the wallet has no PIN yet: run `{command_line(DeviceKind.WALLET, args.device, 'pin')}` first"
            )
        while True:
            print_line(printable(question.text))
            pin = await _secret("PIN: ")
            answer = await wallet.confirm(question.payment_id, question.version, pin, merchant_id=question.merchant_id)
            if isinstance(answer, WalletPaymentResult):
                return _print_result(answer)
            question = answer
            if not sys.stdin.isatty():
                print_error(printable(question.text))
                return ExitCode.DECLINED

    return _run(args, confirm)


def _reject(args: argparse.Namespace) -> int:
    async def reject(wallet: WalletClient) -> int:
        question = await _question(args, wallet)
        answer = await wallet.reject(question.payment_id, merchant_id=question.merchant_id, timeout_s=args.timeout)
        print_line(printable(answer.text))
        return ExitCode.OK

    return _run(args, reject)


def _history(args: argparse.Namespace) -> int:
    async def page(wallet: WalletClient) -> int:
        _print_page(args, await wallet.history(args.limit, args.cursor, timeout_s=args.timeout))
        return ExitCode.OK

    return _run(args, page)


def _print_page(args: argparse.Namespace, page: HistoryPage) -> None:
    for payment in page.payments:
        if args.json:
            print_line(encode(payment))
            continue
        status = Status.PENDING if isinstance(payment, ConfirmationRequired) else payment.status
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(payment.decided_at_ms / 1000))
        amount = format_amount(payment.amount_minor, payment.currency)
        print_line(printable(f"{at} {status:9} {amount:>12}  {payment.merchant_name}, {payment.store_name}"))
    if page.next_cursor is not None:
        print_error(f"next page: --cursor {page.next_cursor}")


def _print_result(result: WalletPaymentResult) -> int:
    print_line(printable(result.text))
    return ExitCode.OK if result.status == Status.APPROVED else ExitCode.DECLINED


def _done(text: str) -> int:
    print_line(text)
    return ExitCode.OK


async def _question(args: argparse.Namespace, wallet: WalletClient) -> ConfirmationRequired:
    """Return the payment that waits for the PIN; the server sends all of them after `ready`."""
    payment_id: UUID | None = args.payment_id

    async def question() -> ConfirmationRequired:
        async for notice in wallet.notices():
            if isinstance(notice, ConfirmationRequired) and payment_id in (None, notice.payment_id):
                return notice
        raise AssertionError("notices end with an exception")

    await _within(args, wallet, wallet.ready())
    try:
        return await asyncio.wait_for(question(), args.timeout)
    except TimeoutError:
        raise ClientError("no payment waits for the PIN") from None


async def _within(args: argparse.Namespace, wallet: WalletClient, waiting: Awaitable[T]) -> T:
    try:
        return await asyncio.wait_for(waiting, args.timeout)
    except TimeoutError:
        raise ClientError(f"not connected: {wallet.problem}") from None


async def _secret(prompt: str) -> str:
    """Read a line without echo. Raises EOFError at the end of input."""
    if sys.stdin.isatty():
        return await hidden_line(prompt)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()


def _run(args: argparse.Namespace, work: Callable[[WalletClient], Coroutine[Any, Any, int | None]]) -> int:
    credentials, state_file = load_wallet(args)

    async def session() -> int | None:
        async with WalletClient(credentials, state_file=state_file, language=args.language) as wallet:
            return await work(wallet)

    try:
        return asyncio.run(session()) or ExitCode.OK
    except EOFError:
        raise UsageError("the input ended before a PIN: enter one line per PIN") from None
    except ValueError as error:
        raise UsageError(str(error)) from None
    except RequestUnanswered as error:
        print_error(f"{error}. A repeat is safe.")
        return ExitCode.UNKNOWN
