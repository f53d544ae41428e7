"""The jobs of an operator that run while payments arrive."""

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

# The load of a chain's back offices on the REST API.
_API_RATE = 50
_API_S = 10.0


@dataclass(frozen=True, slots=True)
class LedgerRound:
    """The data for the jobs of a round: the ledger, the server, a folder, and the business day to settle.

    `shop` is where payments are offered. `keys` has an API key of each role.
    """

    dsn: str
    data_dir: Path
    url: str
    folder: Path
    business_date: str
    shop: Shop
    keys: dict[Role, str]


async def _nothing(ledger: LedgerRound) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Job:
    """A job, with a pause of `pause_s` after each run.

    `prepare` runs before the quiet phase and restores the full work for the first run of a round.
    """

    name: str
    run: Callable[[LedgerRound], Awaitable[None]]
    prepare: Callable[[LedgerRound], Awaitable[None]] = _nothing
    pause_s: float = 0.0


async def _settle(ledger: LedgerRound) -> None:
    await run_pos_server(ledger.data_dir, "settle", "--date", ledger.business_date, "--out", ledger.folder)


async def _audit(ledger: LedgerRound) -> None:
    await run_pos_server(ledger.data_dir, "audit")


async def _seal(ledger: LedgerRound) -> None:
    await run_pos_server(ledger.data_dir, "seal")


async def _unseal(ledger: LedgerRound) -> None:
    async with owner_connection(ledger.dsn) as connection:
        await connection.execute("delete from seal")


async def _reopen_shifts(ledger: LedgerRound) -> None:
    async with owner_connection(ledger.dsn) as connection:
        await connection.execute(
            "alter table shift disable trigger shift_is_fixed; "
            "update shift set closed_at = null, counted_cash_minor = null, figures = null; "
            "update terminal t set shift_id = s.id, kid = 'load', generation = 1 "
            "from shift s where s.terminal_number = t.number; "
            "alter table shift enable trigger shift_is_fixed"
        )


async def _close_shift(ledger: LedgerRound) -> None:
    await _reopen_shifts(ledger)
    async with owner_connection(ledger.dsn) as connection:
        number = await connection.fetchval("select terminal_number from shift")
    async with TerminalClient(credentials_of(DeviceKind.TERMINAL, number, ledger.url)) as till:
        report = await till.close_shift(shift_id_of(1))
    if report.report != "Z":
        raise SystemExit("the shift was not closed: its report is not a Z-report")


async def _api(ledger: LedgerRound) -> None:
    """Send the requests of a chain's back offices: half are reads, a quarter are top-ups."""
    async with (
        ApiClient(ledger.url, ledger.keys[Role.ADMIN]) as admin,
        ApiClient(ledger.url, ledger.keys[Role.ISSUER]) as issuer,
        ApiClient(ledger.url, ledger.keys[Role.MERCHANT]) as merchant,
    ):

        async def list_first_page() -> None:
            payments = merchant.list_payments(PaymentQuery(limit=50))
            async for _ in payments:
                break

        def request(number: int) -> Awaitable[object]:
            wallet = ledger.shop.wallets[number % len(ledger.shop.wallets)].device.number
            match number % 8:
                case 0 | 4:
                    cash = CashCreate(wallet_number=wallet, merchant_id=ledger.shop.merchant_id, amount_minor=1)
                    return issuer.create_top_up(cash)
                case 1 | 5:
                    return issuer.get_wallet(wallet)
                case 2:
                    return merchant.get_balance()
                case 3:
                    return list_first_page()
                case 6:
                    return admin.get_merchant(ledger.shop.merchant_id)
                case _:
                    return issuer.create_wallet(WalletCreate(name=f"Customer {number}", currency=CURRENCY))

        async with asyncio.TaskGroup() as requests:
            for number in range(round(_API_RATE * _API_S)):
                requests.create_task(_wait_for(request(number)))
                await asyncio.sleep(1 / _API_RATE)


async def _wait_for(answer: Awaitable[object]) -> None:
    await answer


JOBS = [
    Job("settle", _settle),
    Job("audit", _audit),
    Job("seal", _seal, _unseal),
    Job("shift close", _close_shift, pause_s=1),
    Job("api", _api),
]
