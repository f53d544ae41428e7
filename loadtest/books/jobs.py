"""What an operator does to the books while payments arrive."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from loadtest.shared.process import owner_connection, run_pos_server
from loadtest.shared.sales_history import shift_id_of
from loadtest.shared.seed import CURRENCY, Shop, credentials_of
from pos_client import TerminalClient
from pos_client.rest.client import ApiClient
from pos_server.core.credentials.api_keys import Role
from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.rest.issuer import CashCreate, WalletCreate
from pos_server.core.rest.merchant_payments import PaymentQuery

# What a chain's back offices ask of the REST API beside its tills.
_API_RATE = 50
_API_S = 10.0


@dataclass(frozen=True, slots=True)
class Stage:
    """What a job may use in its round: the ledger, the server, a folder, the business day that is not settled.

    And the shop where payments are offered, and an API key of each role.
    """

    dsn: str
    data_dir: Path
    url: str
    folder: Path
    business_date: str
    shop: Shop
    keys: dict[Role, str]


async def _nothing(stage: Stage) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Job:
    """What an operator runs, with `pause_s` after each run.

    `prepare` makes the first run of a round find its full work, before the quiet phase.
    """

    name: str
    run: Callable[[Stage], Awaitable[None]]
    prepare: Callable[[Stage], Awaitable[None]] = _nothing
    pause_s: float = 0.0


async def _settle(stage: Stage) -> None:
    await run_pos_server(stage.data_dir, "settle", "--date", stage.business_date, "--out", stage.folder)


async def _audit(stage: Stage) -> None:
    await run_pos_server(stage.data_dir, "audit")


async def _seal(stage: Stage) -> None:
    await run_pos_server(stage.data_dir, "seal")


async def _unseal(stage: Stage) -> None:
    async with owner_connection(stage.dsn) as connection:
        await connection.execute("delete from seal")


async def _open_again(stage: Stage) -> None:
    async with owner_connection(stage.dsn) as connection:
        await connection.execute(
            "alter table shift disable trigger shift_is_fixed; "
            "update shift set closed_at = null, counted_cash_minor = null, figures = null; "
            "update terminal t set shift_id = s.id, kid = 'load', generation = 1 "
            "from shift s where s.terminal_number = t.number; "
            "alter table shift enable trigger shift_is_fixed"
        )


async def _close_shift(stage: Stage) -> None:
    await _open_again(stage)
    async with owner_connection(stage.dsn) as connection:
        number = await connection.fetchval("select terminal_number from shift")
    async with TerminalClient(credentials_of(DeviceKind.TERMINAL, number, stage.url)) as till:
        report = await till.close_shift(shift_id_of(1))
    if report.report != "Z":
        raise SystemExit("the shift was not closed")


async def _api(stage: Stage) -> None:
    """Back offices ask for as much at once as a chain's would: half reads, a quarter of it money."""
    async with (
        ApiClient(stage.url, stage.keys[Role.ADMIN]) as admin,
        ApiClient(stage.url, stage.keys[Role.ISSUER]) as issuer,
        ApiClient(stage.url, stage.keys[Role.MERCHANT]) as merchant,
    ):

        async def some_payments() -> None:
            payments = merchant.list_payments(PaymentQuery(limit=50))
            async for _ in payments:
                break

        def ask(number: int) -> Awaitable[object]:
            wallet = stage.shop.wallets[number % len(stage.shop.wallets)].device.number
            match number % 8:
                case 0 | 4:
                    cash = CashCreate(wallet_number=wallet, merchant_id=stage.shop.merchant_id, amount_minor=1)
                    return issuer.create_top_up(cash)
                case 1 | 5:
                    return issuer.get_wallet(wallet)
                case 2:
                    return merchant.get_balance()
                case 3:
                    return some_payments()
                case 6:
                    return admin.get_merchant(stage.shop.merchant_id)
                case _:
                    return issuer.create_wallet(WalletCreate(name=f"Customer {number}", currency=CURRENCY))

        async with asyncio.TaskGroup() as asking:
            for number in range(round(_API_RATE * _API_S)):
                asking.create_task(_awaited(ask(number)))
                await asyncio.sleep(1 / _API_RATE)


async def _awaited(answer: Awaitable[object]) -> None:
    await answer


JOBS = [
    Job("settle", _settle),
    Job("audit", _audit),
    Job("seal", _seal, _unseal),
    Job("shift close", _close_shift, pause_s=1),
    Job("api", _api),
]
