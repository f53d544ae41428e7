"""The operator's work: blocking, PIN resets, a merchant's terms, API keys, balances and settlement files."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, time
from pathlib import Path

import asyncpg

from ..business_days import is_time_zone
from ..core.accounting.settlement import csv_text, json_text, totals
from ..core.credentials.api_keys import API_KEY_BYTES, Role, api_key
from ..core.errors import PosError
from ..core.money import format_amount
from ..core.payments.snapshot import MerchantStatus, TerminalStatus, WalletStatus
from ..core.rest.admin import MerchantChange
from ..ledger import directory
from ..ledger.api_keys import ApiKeyRecord, create_api_key, end_api_key, list_api_keys
from ..ledger.rollup import balances
from ..ledger.settlement import settle
from ..programs import pasteable
from .output_files import FolderUnusable, check_folder, write_files

Action = Callable[[asyncpg.Connection, int], Awaitable[bool]]

# Actions of each kind, by the words on the command line.
ACTIONS: dict[str, dict[str, Action]] = {
    "wallet": {
        "freeze": lambda connection, number: directory.set_wallet_status(connection, number, WalletStatus.FROZEN),
        "thaw": lambda connection, number: directory.set_wallet_status(connection, number, WalletStatus.ACTIVE),
        "close": lambda connection, number: directory.set_wallet_status(connection, number, WalletStatus.CLOSED),
        "reset-pin": directory.reset_pin,
    },
    "terminal": {
        "disable": lambda connection, number: directory.set_terminal_status(
            connection, number, TerminalStatus.DISABLED
        ),
        "enable": lambda connection, number: directory.set_terminal_status(connection, number, TerminalStatus.ACTIVE),
    },
    "merchant": {
        "deactivate": lambda connection, number: directory.set_merchant_status(
            connection, number, MerchantStatus.INACTIVE
        ),
        "activate": lambda connection, number: directory.set_merchant_status(connection, number, MerchantStatus.ACTIVE),
    },
}


class BadTerms(PosError):
    """Invalid terms of a merchant; the text has the valid values."""


class NotFound(PosError):
    """Nothing has this number; the text names the kind and the number."""


async def act(connection: asyncpg.Connection, kind: str, action: str, number: int) -> str:
    """Run an action of ACTIONS. Returns a line for the operator. Raises NotFound."""
    if not await ACTIONS[kind][action](connection, number):
        raise NotFound(f"there is no {kind} {number}")
    return f"{kind} {number}: {action} done"


async def change_terms(connection: asyncpg.Connection, merchant_id: int, change: MerchantChange) -> str:
    """Change a merchant's terms; None keeps a value. Returns a line with all terms. Raises NotFound and BadTerms."""
    if change.time_zone is not None and not is_time_zone(change.time_zone):
        raise BadTerms(f"there is no time zone {change.time_zone}. Use an IANA name such as Europe/Berlin")
    row = await directory.set_terms(
        connection,
        merchant_id,
        fee_bps=change.fee_bps,
        fee_fixed_minor=change.fee_fixed_minor,
        time_zone=change.time_zone,
        cut_off=None if change.cut_off is None else time.fromisoformat(change.cut_off),
    )
    if row is None:
        raise NotFound(f"there is no merchant {merchant_id}")
    fixed = format_amount(row["fee_fixed_minor"], row["currency"])
    return (
        f"merchant {merchant_id} {row['name']}: fee {row['fee_bps'] / 100:g}% and {fixed} per sale, "
        f"the business day ends at {row['cut_off']:%H:%M} {row['time_zone']}"
    )


async def new_key(connection: asyncpg.Connection, role: Role, merchant_id: int | None, name: str) -> str:
    """Create an API key and return it; only its hash is stored. Role MERCHANT needs `merchant_id`. Raises NotFound."""
    key = api_key(role, secrets.token_bytes(API_KEY_BYTES))
    try:
        await create_api_key(connection, key, role, merchant_id, name)
    except asyncpg.ForeignKeyViolationError:
        raise NotFound(f"there is no merchant {merchant_id}") from None
    return key


async def revoke_key(connection: asyncpg.Connection, key_id: int) -> str:
    """Revoke an API key. Returns a line for the operator. Raises NotFound."""
    if not await end_api_key(connection, key_id):
        raise NotFound(f"there is no API key {key_id}. `pos-server keys list` shows all keys")
    return f"API key {key_id} revoked"


async def balances_text(connection: asyncpg.Connection) -> str:
    """Return the current balances of the merchants and the house as text, one line per account."""
    return "\n".join(
        f"{account.kind:<9} {account.owner:<30} {format_amount(account.balance_minor, account.currency):>20}"
        for account in await balances(connection)
    )


async def settle_into(connection: asyncpg.Connection, business_date: date, now: datetime, folder: Path) -> str:
    """Settle a business day and write its files. Returns lines for the operator.

    Raises FolderUnusable before anything is settled, or after it if the disk is full by then; then a repeat writes the
    files. Raises DayNotOver and DayBeforeLedger.
    """
    await asyncio.to_thread(check_folder, folder)
    settled = await settle(connection, business_date, now)
    day = business_date.isoformat()
    texts = {"csv": csv_text(day, settled.statements), "json": json_text(day, settled.statements)}
    try:
        paths = await asyncio.to_thread(write_files, folder, f"settlement-{day}", texts)
    except FolderUnusable as error:
        raise FolderUnusable(f"{error}. The day is settled: run the command again to write its files") from None
    lines = [f"wrote {path}" for path in paths]
    for currency, total in totals(settled.statements).items():
        paid, net = (format_amount(total[name], currency) for name in ("paid_out_minor", "net_minor"))
        lines.append(f"{day}: {total['statements']} merchants, net {net}, paid out {paid}")
    return "\n".join([*lines, f"{settled.created} new statements"])


async def keys_text(connection: asyncpg.Connection) -> str:
    """Return all API keys as text, one line per key."""
    keys = await list_api_keys(connection)
    if not keys:
        return pasteable("no API keys. `pos-server keys create --role admin` creates one")
    return "\n".join(
        f"{key.id:>6}  {_state(key):<7}  {_owner(key)}: {key.name}, created {key.created_at:%Y-%m-%d}, "
        + (f"last used {key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used")
        for key in keys
    )


def _state(key: ApiKeyRecord) -> str:
    if key.ends_at is None:
        return "active"
    return "ended" if key.ends_at <= datetime.now(UTC) else "ending"


def _owner(key: ApiKeyRecord) -> str:
    return key.role if key.merchant_id is None else f"merchant {key.merchant_id} {key.merchant_name}"
