"""The real side: Postgres, and the server's own load, decide and apply, driven as the authorizer does. Nothing here is
a test.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest

from pos_server.core.credentials.device_keys import DeviceId, DeviceKind
from pos_server.core.credentials.pins import PinHash
from pos_server.core.payments.decide import decide
from pos_server.core.payments.operations import Operation, Outcome, Scan
from pos_server.core.payments.rules import Limits, Risk, Rules
from pos_server.ledger import directory, pins
from pos_server.ledger.audit import AuditReport, audit
from pos_server.ledger.database import connect
from pos_server.ledger.payments import LEDGER_CONFLICT, apply_changes, load_snapshot
from pos_server.ledger.rows import plain_uuid
from pos_server.ledger.sql import QUERIES
from tests.model import model
from tests.support import KEYRING, activated, top_up

T = TypeVar("T")

# Wallets by currency and balance, and how many devices each has; the last device of the last wallet is revoked.
WALLETS = [("EUR", 12_000, 2), ("EUR", 3_000, 1), ("JPY", 5_000, 2), ("EUR", 9_000, 2)]
MERCHANTS = [("EUR", 2), ("EUR", 2), ("JPY", 1)]
# Of each merchant: hundredths of a percent, and a fixed part.
FEES = [(145, 7), (0, 0), (2_500, 1)]
REVOKED = (3, 1)


def risk(scan: Scan, wallet: object) -> Risk:
    """The hook of this server goes by the amount."""
    answers = {model.REJECTED_AMOUNT: Risk.REJECT, model.ASKED_AMOUNT: Risk.ASK_PIN}
    return answers.get(scan.amount_minor, Risk.ACCEPT)


def _limits(currency: str) -> Limits:
    limits = model.LIMITS[currency]
    return Limits(
        limits["payment"],
        limits["day"],
        limits["free"],
        limits["free_count"],
        limits["free_day"],
        limits["top_up"],
        limits["balance"],
    )


RULES = Rules(
    limits=_limits("EUR"),
    currency_limits={"JPY": _limits("JPY")},
    risk=risk,
    code_expired_steps=model.EXPIRED_STEPS,
    confirmation_ms=model.CONFIRMATION,
    pin_payment_failures_max=model.WRONG_PINS_OF_A_PAYMENT,
    pin_failures_max=model.WRONG_PINS_OF_A_WALLET,
    pin_lock_ms=model.PIN_LOCK,
    cancel_window_ms=model.CANCEL_WINDOW,
    refund_window_ms=model.REFUND_WINDOW,
    refunds_max=model.REFUNDS_MAX,
)


class RealLedger:
    """One database with two merchants in EUR and one in JPY; `begin` makes it as good as new. Close it at the end."""

    def __init__(self, dsn: str) -> None:
        self._runner = asyncio.Runner()
        self.merchants: dict[int, str] = {}
        self.terminals: dict[int, int] = {}
        self.wallets: list[int] = []
        self.devices: list[tuple[int, int]] = []
        self._run(self._open(dsn))

    async def _open(self, dsn: str) -> None:
        self._connection = await connect(dsn, timeout_s=10)
        self._admin = await connect(dsn, timeout_s=10, role=None)
        # What is committed need not survive a power cut here.
        for connection in (self._connection, self._admin):
            await connection.execute("set synchronous_commit = off")
        for (currency, terminals), fee in zip(MERCHANTS, FEES, strict=True):
            merchant = await directory.create_merchant(self._connection, f"Shop in {currency}", currency)
            fees = "update merchant set fee_bps = $2, fee_fixed_minor = $3 where id = $1"
            await self._connection.execute(fees, merchant, *fee)
            store = await directory.create_store(self._connection, merchant, "Main hall")
            self.merchants[merchant] = currency
            for index in range(terminals):
                self.terminals[await directory.create_terminal(self._connection, store, f"Till {index}")] = merchant
        for currency, balance, devices in WALLETS:
            number = await directory.create_wallet(self._connection, "Customer", currency)
            self.wallets.append(number)
            await top_up(self._connection, uuid4(), min(self.merchants), number, balance, currency, now_ms=0)
            for slot in range(devices):
                await activated(self._connection, DeviceId(DeviceKind.WALLET, number, slot))
                self.devices.append((number, slot))

    def close(self) -> None:
        self._run(self._connection.close())
        self._run(self._admin.close())
        self._runner.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def begin(self) -> None:
        """Forget all payments, and put wallets, devices, tills and merchants back as they were made."""
        statements = [
            "delete from refund; delete from transfer where source_id <> all "
            "(select source_id from transfer where kind = 'top_up' order by id limit 4)",
            "delete from payment where not exists (select from transfer where source_id = payment.id)",
            "update terminal set status = 'active'; update merchant set status = 'active'",
            "update wallet set status = 'active', pin_hash = null, pin_kid = null, pin_generation = 0, "
            "pin_failures = 0, pin_locked_until = 'epoch', day_start = 'epoch', day_spent_minor = 0, "
            "day_pin_free_minor = 0, day_pin_free_count = 0, balance_minor = (select amount_minor from transfer x "
            "where x.wallet_number = number)",
            "update wallet_device set spent_mark = 0, generation = 1, status = case when (wallet_number, slot) = "
            f"({self.wallets[REVOKED[0]]}, {REVOKED[1]}) then 'revoked' else 'active' end",
        ]
        self._run(self._admin.execute("; ".join(statements)))

    def decide(self, operations: Sequence[Operation], now_ms: int, *, outrun: bool = False) -> list[Outcome]:
        """One batch, from rows to rows; `outrun`: another server commits to the same wallets meanwhile, once."""
        return self._run(self._decide(operations, now_ms, outrun))

    async def _decide(self, operations: Sequence[Operation], now_ms: int, outrun: bool) -> list[Outcome]:
        snapshot = await load_snapshot(self._connection, operations)
        day_start_ms = now_ms // model.DAY * model.DAY
        outcomes, changes = decide(operations, snapshot, KEYRING, now_ms, RULES, day_start_ms=day_start_ms)
        if outrun and changes.wallets:
            await self._admin.execute("update wallet set version = version + 1")
            with pytest.raises(LEDGER_CONFLICT):
                await apply_changes(self._connection, changes, now_ms)
            return await self._decide(operations, now_ms, outrun=False)
        if changes:
            await apply_changes(self._connection, changes, now_ms)
        return outcomes

    def overdue(self, now_ms: int) -> set[UUID]:
        """What the sweeper would hand to the engine."""
        rows = self._run(self._connection.fetch(QUERIES["payments_to_expire"], now_ms, 1_000))
        return {plain_uuid(row["id"]) for row in rows}

    def wallet_rows(self, now_ms: int) -> dict[int, tuple[int, ...]]:
        """As Model.wallet_rows; what was counted on another day counts for nothing."""
        rows = self._run(
            self._admin.fetch(
                "select number, balance_minor, pin_failures, unix_ms(pin_locked_until), "
                "is_today * day_spent_minor, is_today * day_pin_free_minor, is_today * day_pin_free_count "
                "from wallet, lateral (select (day_start >= from_unix_ms($1))::int) as day (is_today)",
                now_ms // model.DAY * model.DAY,
            )
        )
        return {row["number"]: tuple(row)[1:] for row in rows}

    def payment_rows(self) -> dict[UUID, tuple[object, ...]]:
        """As Model.payment_rows."""
        rows = self._run(
            self._admin.fetch(
                "select id, status, decline_code, version, pin_failures, refunded_minor, refunds from payment "
                "where reference is null or reference not like 'top-up-%'"
            )
        )
        return {plain_uuid(row["id"]): tuple(row)[1:] for row in rows}

    def merchant_rows(self) -> dict[int, int]:
        """As Model.merchant_rows."""
        rows = self._run(
            self._admin.fetch(
                "select m.id, coalesce(sum(case m.account_id when x.credit_account_id then x.amount_minor "
                "when x.debit_account_id then -x.amount_minor end), 0) as earned "
                "from merchant m left join transfer x on m.account_id in (x.credit_account_id, x.debit_account_id) "
                "group by m.id"
            )
        )
        return {row["id"]: int(row["earned"]) for row in rows}

    def audit(self) -> AuditReport:
        return self._run(audit(self._admin))

    # --- what the server does besides deciding

    def set_status(self, kind: str, number: int, status: str) -> None:
        assert self._run(self._connection.fetchval(QUERIES[f"set_{kind}_status"], number, status)) == number

    def set_pin(self, wallet: int, generation: int) -> None:
        assert self._run(pins.set_pin(self._connection, wallet, generation, PinHash("k1", "a hash"), uuid4()))

    def reset_pin(self, wallet: int) -> None:
        assert self._run(self._connection.fetchval(QUERIES["reset_pin"], wallet)) == wallet

    def count_wrong_pin(self, wallet: int, generation: int, now_ms: int) -> None:
        failures_max, until_ms = RULES.pin_failures_max, now_ms + RULES.pin_lock_ms
        self._run(pins.count_wrong_pin(self._connection, wallet, generation, failures_max, until_ms, uuid4()))

    def activate(self, wallet: int, slot: int) -> int:
        """A new key for a device; returns its generation."""
        return self._run(self._connection.fetchval(QUERIES["rekey_wallet_device"], wallet, slot, "k1"))

    def top_up(self, wallet: int, amount_minor: int, currency: str, now_ms: int) -> int | None:
        """On the operator's word: without limits."""
        return self._run(
            top_up(self._connection, uuid4(), min(self.merchants), wallet, amount_minor, currency, now_ms=now_ms)
        )
