"""A ledger in Postgres, through the load and apply that the engine uses."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar
from uuid import uuid4

from pos_server.core.credentials.device_keys import DeviceId, DeviceKind
from pos_server.core.credentials.pins import PinHash
from pos_server.core.payments.operations import Operation
from pos_server.core.payments.snapshot import Changeset, Snapshot
from pos_server.ledger import directory, pins
from pos_server.ledger.audit import audit
from pos_server.ledger.database import connect
from pos_server.ledger.payments import apply_changes, load_snapshot
from pos_server.ledger.rows import plain_uuid
from pos_server.ledger.sql import QUERIES
from tests.model import limits
from tests.model.ledger import FEES, MERCHANTS, REVOKED, RULES, WALLETS, Ledger
from tests.model.records import Key
from tests.support import LEDGER_CONFLICT, activated, top_up

T = TypeVar("T")


class PostgresLedger(Ledger):
    """A ledger in one database. Call `close` at the end."""

    conflict = LEDGER_CONFLICT

    def __init__(self, dsn: str) -> None:
        self._runner = asyncio.Runner()
        self.merchants, self.terminals, self.wallets, self.devices = {}, {}, [], []
        self._run(self._open(dsn))

    async def _open(self, dsn: str) -> None:
        self._connection = await connect(dsn, timeout_s=10)
        self._admin = await connect(dsn, timeout_s=10, role=None)
        # Commits need not be durable in this test.
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
        statements = [
            "delete from refund; delete from transfer where source_id <> all "
            "(select source_id from transfer where kind = 'top_up' order by id limit 4)",
            "delete from payment where not exists (select from transfer where source_id = payment.id and "
            "merchant_id = payment.merchant_id)",
            "update terminal set status = 'active'; update merchant set status = 'active'",
            "update wallet set status = 'active', pin_hash = null, pin_kid = null, pin_generation = 0, "
            "pin_failures = 0, pin_locked_until = 'epoch', day_start = 'epoch', day_spent_minor = 0, "
            "day_pin_free_minor = 0, day_pin_free_count = 0, balance_minor = (select amount_minor from transfer x "
            "where x.wallet_number = number)",
            "update wallet_device set spent_mark = 0, generation = 1, status = case when (wallet_number, slot) = "
            f"({self.wallets[REVOKED[0]]}, {REVOKED[1]}) then 'revoked' else 'active' end",
        ]
        self._run(self._admin.execute("; ".join(statements)))

    def load(self, operations: Sequence[Operation]) -> Snapshot:
        return self._run(load_snapshot(self._connection, operations))

    def apply(self, changes: Changeset, now_ms: int) -> None:
        self._run(apply_changes(self._connection, changes, now_ms))

    def move_wallet_versions(self) -> None:
        self._run(self._admin.execute("update wallet set version = version + 1"))

    def overdue(self, now_ms: int) -> set[Key]:
        rows = self._run(self._connection.fetch(QUERIES["payments_to_expire"], now_ms, 1_000))
        return {(row["merchant_id"], plain_uuid(row["id"])) for row in rows}

    def wallet_rows(self, now_ms: int) -> dict[int, tuple[int, ...]]:
        rows = self._run(
            self._admin.fetch(
                "select number, balance_minor, pin_failures, unix_ms(pin_locked_until), "
                "is_today * day_spent_minor, is_today * day_pin_free_minor, is_today * day_pin_free_count "
                "from wallet, lateral (select (day_start >= from_unix_ms($1))::int) as day (is_today)",
                now_ms // limits.DAY * limits.DAY,
            )
        )
        return {row["number"]: tuple(row)[1:] for row in rows}

    def payment_rows(self) -> dict[Key, tuple[object, ...]]:
        rows = self._run(
            self._admin.fetch(
                "select merchant_id, id, status, decline_code, version, pin_failures, refunded_minor, refunds "
                "from payment where reference is null or reference not like 'top-up-%'"
            )
        )
        return {(row["merchant_id"], plain_uuid(row["id"])): tuple(row)[2:] for row in rows}

    def merchant_rows(self) -> dict[int, int]:
        rows = self._run(
            self._admin.fetch(
                "select m.id, coalesce(sum(case m.account_id when x.credit_account_id then x.amount_minor "
                "when x.debit_account_id then -x.amount_minor end), 0) as earned "
                "from merchant m left join transfer x on m.account_id in (x.credit_account_id, x.debit_account_id) "
                "group by m.id"
            )
        )
        return {row["id"]: int(row["earned"]) for row in rows}

    def spent_codes(self) -> dict[tuple[int, int], tuple[int, int]]:
        rows = self._run(self._admin.fetch("select wallet_number, slot, spent_mark from wallet_device"))
        return {(row["wallet_number"], row["slot"]): divmod(row["spent_mark"], 10) for row in rows}

    def audit(self) -> None:
        report = self._run(audit(self._admin))
        # For the real clock, every pending payment is overdue. The machine compares them with the model itself.
        assert [finding for finding in report.findings if finding.check != "pending_in_time"] == [], report

    # --- other changes

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
        return self._run(self._connection.fetchval(QUERIES["rekey_wallet_device"], wallet, slot, "k1"))

    def top_up(self, wallet: int, amount_minor: int, currency: str, now_ms: int) -> int:
        return self._run(
            top_up(self._connection, uuid4(), min(self.merchants), wallet, amount_minor, currency, now_ms=now_ms)
        )
