"""Handlers of the role `merchant`: shifts and their reports, settlement statements and the balance."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

import asyncpg

from ..core.accounting.shifts import TotalKind, report_text
from ..core.rest.fields import NoParameters, Page
from ..core.rest.merchant_reports import (
    MerchantBalance,
    Shift,
    ShiftPath,
    ShiftQuery,
    ShiftReport,
    ShiftTotal,
    Statement,
    StatementPath,
    StatementQuery,
)
from ..core.rest.problems import ProblemCode
from ..ledger import reports, rollup, shifts
from ..ledger.reports import PageCursor, Reports
from ..ledger.rows import plain_uuid
from .support.dispatch import ApiCall, Handler, Reply
from .support.pages import after_cursor, bad_cursor, page, page_by_cursor
from .support.problems import problem
from .support.times import rfc3339, rfc3339_of_ms, rfc3339_or_none


class MerchantReports:
    """Handlers of the role `merchant` for reports. `now_ms` returns the time in Unix milliseconds."""

    def __init__(self, reports: Reports, *, now_ms: Callable[[], int]) -> None:
        self._reports = reports
        self._now_ms = now_ms

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by the names of REPORT_ENDPOINTS."""
        return {
            "listShifts": self.list_shifts,
            "getShift": self.get_shift,
            "listStatements": self.list_statements,
            "getStatement": self.get_statement,
            "getBalance": self.get_balance,
        }

    async def list_shifts(self, call: ApiCall[NoParameters, ShiftQuery, None]) -> Reply:
        merchant_id, _ = call.key.merchant
        query, after = call.query, after_cursor(call.query)
        async with self._reports.connection() as connection:
            rows = await reports.list_shifts(connection, merchant_id, query.terminal_number, after, query.limit + 1)
        items = [(Shift(**_shift_fields(row)), PageCursor(row["opened_at"], row["id"])) for row in rows]
        return Reply(page_by_cursor(Page[Shift], items, query))

    async def get_shift(self, call: ApiCall[ShiftPath, NoParameters, None]) -> Reply:
        merchant_id, _ = call.key.merchant
        shift_id = call.parameters.shift_id
        async with self._reports.connection() as connection:
            terminal_number = await reports.find_shift_terminal(connection, merchant_id, shift_id)
            if terminal_number is None:
                raise problem(ProblemCode.NOT_FOUND)
            shift = await shifts.find_shift(connection, terminal_number, shift_id, self._now_ms())
        if shift is None:
            raise AssertionError("the shift is no longer in the database")
        return Reply(
            ShiftReport(
                shift_id=shift.shift_id,
                shift_number=shift.number,
                terminal_number=shift.terminal_number,
                operator=shift.operator,
                currency=shift.currency,
                opened_at=rfc3339_of_ms(shift.opened_at_ms),
                closed_at=None if shift.closed_at_ms is None else rfc3339_of_ms(shift.closed_at_ms),
                opening_cash_minor=shift.opening_cash_minor,
                counted_cash_minor=shift.counted_cash_minor,
                report="Z" if shift.is_closed else "X",
                merchant_name=shift.merchant_name,
                store_name=shift.store_name,
                made_at=rfc3339_of_ms(shift.made_at_ms),
                totals=tuple(ShiftTotal(kind=kind.value, **asdict(shift.total(kind))) for kind in TotalKind),
                net_sales_minor=shift.net_sales_minor,
                expected_cash_minor=shift.expected_cash_minor,
                cash_difference_minor=shift.cash_difference_minor,
                text=report_text(shift, call.language),
            )
        )

    async def list_statements(self, call: ApiCall[NoParameters, StatementQuery, None]) -> Reply:
        merchant_id, _ = call.key.merchant
        query = call.query
        day = None if query.business_date is None else _date(query.business_date)
        if query.business_date is not None and day is None:
            raise problem(ProblemCode.BAD_FIELD, "This date does not exist.", pointer="/business_date")
        before = None if query.cursor is None else _date(query.cursor)
        if query.cursor is not None and before is None:
            raise bad_cursor()
        async with self._reports.connection() as connection:
            rows = await reports.list_statements(connection, merchant_id, day, before, query.limit + 1)
        return Reply(
            page(Page[Statement], [_statement(row) for row in rows], query, lambda statement: statement.business_date)
        )

    async def get_statement(self, call: ApiCall[StatementPath, NoParameters, None]) -> Reply:
        merchant_id, _ = call.key.merchant
        day = _date(call.parameters.business_date)
        if day is None:
            raise problem(ProblemCode.NOT_FOUND)
        async with self._reports.connection() as connection:
            rows = await reports.list_statements(connection, merchant_id, day, None, 1)
        if not rows:
            raise problem(ProblemCode.NOT_FOUND)
        return Reply(_statement(rows[0]))

    async def get_balance(self, call: ApiCall[NoParameters, NoParameters, None]) -> Reply:
        merchant_id, currency = call.key.merchant
        async with self._reports.connection() as connection:
            balance_minor = await rollup.merchant_balance(connection, merchant_id)
        return Reply(MerchantBalance(merchant_id=merchant_id, currency=currency, balance_minor=balance_minor))


def _date(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        return None


def _shift_fields(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "shift_id": plain_uuid(row["id"]),
        "shift_number": row["number"],
        "terminal_number": row["terminal_number"],
        "operator": row["operator"],
        "currency": row["currency"],
        "opened_at": rfc3339(row["opened_at"]),
        "closed_at": rfc3339_or_none(row["closed_at"]),
        "opening_cash_minor": row["opening_cash_minor"],
        "counted_cash_minor": row["counted_cash_minor"],
    }


def _statement(row: asyncpg.Record) -> Statement:
    times = {name: rfc3339(row[name]) for name in ("starts_at", "ends_at")}
    return Statement(**{**row, "business_date": row["business_date"].isoformat(), **times})
