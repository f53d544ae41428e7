"""`pos-wallet pin`, `confirm`, `reject` and `history`: the commands that ask something of the server and exit."""

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
from .console import ExitCode, UsageError, command_line, complain, printable, say
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
            help=f"how long to wait for the server ({REQUEST_TIMEOUT_S:g})",
        )
        return parser

    command("pin", "set the wallet's PIN, or change it", _pin)
    for answer in (
        command("confirm", "pay what waits for the PIN", _confirm),
        command("reject", "refuse what waits for the PIN", _reject),
    ):
        answer.add_argument("--payment-id", type=inputs.identifier, metavar="ID", help="which; default the oldest")
    history = command("history", "list the payments, latest change first", _history)
    history.add_argument("--limit", type=int, default=20, choices=range(1, PAGE_MAX + 1), metavar=f"1..{PAGE_MAX}")
    history.add_argument("--cursor", help="goes on where an earlier page ended, as that one said")
    history.add_argument("--json", action="store_true", help="print each payment as one line of JSON")


def _pin(args: argparse.Namespace) -> int:
    async def change(wallet: WalletClient) -> None:
        ready = await _within(args, wallet, wallet.ready())
        old = await _secret("The PIN of now: ") if ready.pin_set else None
        new = await _secret("The new PIN, 4 to 12 digits: ")
        if sys.stdin.isatty() and await _secret("Once more: ") != new:
            raise UsageError("those were two different PINs")
        await wallet.set_pin(new, old, timeout_s=args.timeout)

    return _run(args, change) or _done("The PIN is set.")


def _confirm(args: argparse.Namespace) -> int:
    async def confirm(wallet: WalletClient) -> int:
        asked = await _question(args, wallet)
        if not wallet.pin_set:
            raise ClientError(
                f"the wallet has no PIN yet: run `{command_line(DeviceKind.WALLET, args.device, 'pin')}` first"
            )
        while True:
            say(printable(asked.text))
            answer = await wallet.confirm(asked.payment_id, asked.version, await _secret("PIN: "))
            if isinstance(answer, WalletPaymentResult):
                return _say_result(answer)
            asked = answer
            if not sys.stdin.isatty():
                complain(printable(asked.text))
                return ExitCode.DECLINED

    return _run(args, confirm)


def _reject(args: argparse.Namespace) -> int:
    async def reject(wallet: WalletClient) -> int:
        asked = await _question(args, wallet)
        answer = await wallet.reject(asked.payment_id, timeout_s=args.timeout)
        say(printable(answer.text))
        return ExitCode.OK

    return _run(args, reject)


def _history(args: argparse.Namespace) -> int:
    async def page(wallet: WalletClient) -> int:
        _say_page(args, await wallet.history(args.limit, args.cursor, timeout_s=args.timeout))
        return ExitCode.OK

    return _run(args, page)


def _say_page(args: argparse.Namespace, page: HistoryPage) -> None:
    for payment in page.payments:
        if args.json:
            say(encode(payment))
            continue
        status = Status.PENDING if isinstance(payment, ConfirmationRequired) else payment.status
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(payment.decided_at_ms / 1000))
        amount = format_amount(payment.amount_minor, payment.currency)
        say(printable(f"{at} {status:9} {amount:>12}  {payment.merchant_name}, {payment.store_name}"))
    if page.next_cursor is not None:
        complain(f"more: --cursor {page.next_cursor}")


def _say_result(result: WalletPaymentResult) -> int:
    say(printable(result.text))
    return ExitCode.OK if result.status == Status.APPROVED else ExitCode.DECLINED


def _done(text: str) -> int:
    say(text)
    return ExitCode.OK


async def _question(args: argparse.Namespace, wallet: WalletClient) -> ConfirmationRequired:
    """What waits for the PIN: the server says so after each `ready`."""
    wanted: UUID | None = args.payment_id

    async def question() -> ConfirmationRequired:
        async for notice in wallet.notices():
            if isinstance(notice, ConfirmationRequired) and wanted in (None, notice.payment_id):
                return notice
        raise AssertionError("notices end with an exception")

    await _within(args, wallet, wallet.ready())
    try:
        return await asyncio.wait_for(question(), args.timeout)
    except TimeoutError:
        raise ClientError("nothing waits for the PIN") from None


async def _within(args: argparse.Namespace, wallet: WalletClient, waiting: Awaitable[T]) -> T:
    try:
        return await asyncio.wait_for(waiting, args.timeout)
    except TimeoutError:
        raise ClientError(f"not connected: {wallet.problem}") from None


async def _secret(prompt: str) -> str:
    """A line that is not shown. Raises EOFError."""
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
        raise UsageError("the input ended before there was a PIN") from None
    except ValueError as error:
        raise UsageError(str(error)) from None
    except RequestUnanswered as error:
        complain(f"{error}. The same again is safe.")
        return ExitCode.UNKNOWN
