"""A short store day: wallets draw code images, tills read them and scan, and both receive the outcome."""

import asyncio
import time
import uuid
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import Enum

from pos_client import Credentials, TerminalClient, WalletClient, activate
from pos_client.images import code128_png, qr_png, read_code

from ..core.credentials import payment_code
from ..core.credentials.device_keys import DeviceId, DeviceKind
from ..core.protocol.server_messages import TerminalPaymentResult, WalletPaymentResult
from .pin_cancel_refund import Pair, play_pin_cancel_refund
from .report import Outcome, Report, Side
from .shop import POOR_CUSTOMER, BackOffice, Customer, Shop, Terminal

_NOTICE_TIMEOUT_S = 10.0
_BETWEEN_SALES_S = 0.1
_SALES_PER_TILL = 12
_PRICES_MINOR = (4_20, 6_90, 2_50, 7_80, 3_60, 5_40, 1_90)


class Case(Enum):
    """The kind of a sale. The value is its expected outcome."""

    NORMAL = "approved"
    TOO_EXPENSIVE = "insufficient_funds"
    SCREENSHOT = "code_expired"
    PHOTOGRAPHED = "code_used"
    FORGED = "code_invalid"


# Sales that are not normal, by till and number of the sale.
_SPECIAL: list[dict[int, Case]] = [
    {3: Case.TOO_EXPENSIVE, 8: Case.PHOTOGRAPHED},
    {4: Case.SCREENSHOT, 9: Case.FORGED},
    {2: Case.PHOTOGRAPHED, 7: Case.TOO_EXPENSIVE},
]


@dataclass(slots=True)
class _Phone:
    """A customer with an open wallet, who is served by one till at a time."""

    customer: Customer
    credentials: Credentials
    wallet: WalletClient
    last_digits: str = field(default="", repr=False)
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class _Till:
    terminal: Terminal
    client: TerminalClient


async def play_day(url: str, shop: Shop, back_office: BackOffice, report: Report) -> None:
    """Activate and connect all devices, sell at all tills concurrently, then play the steps after the rush."""

    async def activated(kind: DeviceKind, number: int) -> Credentials:
        code = await back_office.activation_code(DeviceId(kind, number))
        return await activate(url, code, request_id=uuid.uuid4())

    report.opening(url, len(shop.terminals), len(shop.wallets))
    async with AsyncExitStack() as stack:
        tills, phones = [], []
        for terminal in shop.terminals:
            credentials = await activated(DeviceKind.TERMINAL, terminal.number)
            client = await stack.enter_async_context(TerminalClient(credentials))
            await client.ready()
            tills.append(_Till(terminal, client))
        for customer in shop.wallets:
            credentials = await activated(DeviceKind.WALLET, customer.number)
            wallet = await stack.enter_async_context(WalletClient(credentials))
            await wallet.ready()
            phones.append(_Phone(customer, credentials, wallet))
        sales: defaultdict[str, int] = defaultdict(int)
        async with asyncio.TaskGroup() as group:
            for index, till in enumerate(tills):
                group.create_task(_work(till, index, phones, sales, report))
        pair = Pair(tills[0].terminal.number, tills[0].client, phones[0].customer.name, phones[0].wallet)
        await play_pin_cancel_refund(pair, report)


async def _work(till: _Till, index: int, phones: list[_Phone], sales: defaultdict[str, int], report: Report) -> None:
    rich = [phone for phone in phones if phone.customer.name != POOR_CUSTOMER]
    poor = next(phone for phone in phones if phone.customer.name == POOR_CUSTOMER)
    for number in range(_SALES_PER_TILL):
        case = _SPECIAL[index % len(_SPECIAL)].get(number, Case.NORMAL)
        # Tills serve different customers, so that a photographed code is the last one that its customer used.
        phone = poor if case is Case.TOO_EXPENSIVE else rich[(index + len(phones) // 3 * number) % len(rich)]
        if case is Case.PHOTOGRAPHED:
            phone = rich[(index + len(phones) // 3 * (number - 1)) % len(rich)]
        amount_minor = _PRICES_MINOR[(index * 3 + number) % len(_PRICES_MINOR)] + (3_00 if phone is poor else 0)
        async with phone.busy:
            report.payment(await _sell(till, phone, case, amount_minor))
        await asyncio.sleep(_BETWEEN_SALES_S)


async def _sell(till: _Till, phone: _Phone, case: Case, amount_minor: int) -> Outcome:
    digits = await _shown_digits(phone, case)
    # Only an image passes from the wallet's screen to the till's camera.
    draw = code128_png if till.terminal.store == "Garden kiosk" else qr_png
    code = await asyncio.to_thread(lambda: read_code(draw(digits)))

    started_s = time.perf_counter()
    notice = asyncio.create_task(_notice(phone, started_s)) if case is not Case.FORGED else None
    reference = f"{till.terminal.number}-{time.time_ns() // 1_000_000}"
    result = await till.client.scan(code=code, amount_minor=amount_minor, reference=reference)
    terminal_ms = (time.perf_counter() - started_s) * 1000
    if case is Case.NORMAL:
        phone.last_digits = digits
    wallet_side = None
    if notice is not None:
        wallet_side = _wallet_side(await notice, result)
    return Outcome(
        terminal=till.terminal,
        customer=phone.customer,
        amount_minor=amount_minor,
        expected=case.value,
        seen=result.decline_code or result.status,
        terminal_side=Side(result.text, terminal_ms),
        wallet_side=wallet_side,
        wallet_expected=notice is not None,
    )


async def _shown_digits(phone: _Phone, case: Case) -> str:
    """Return the digits in front of the camera."""
    if case is Case.PHOTOGRAPHED:
        return phone.last_digits
    if case is Case.SCREENSHOT:
        owner = phone.credentials
        expired_step = payment_code.step_at(time.time()) - 4
        return payment_code.make(owner.device_key, owner.number, owner.slot, expired_step, 0)
    digits = (await phone.wallet.next_code()).digits
    if case is Case.FORGED:
        return digits[:-1] + str((int(digits[-1]) + 1) % 10)
    return digits


async def _notice(phone: _Phone, started_s: float) -> tuple[WalletPaymentResult, float] | None:
    try:
        async with asyncio.timeout(_NOTICE_TIMEOUT_S):
            notice = await phone.wallet.notice()
    except TimeoutError:
        return None
    return notice, (time.perf_counter() - started_s) * 1000


def _wallet_side(received: tuple[WalletPaymentResult, float] | None, result: TerminalPaymentResult) -> Side | None:
    if received is None or received[0].payment_id != result.payment_id:
        return None
    notice, latency_ms = received
    return Side(notice.text, latency_ms)
