"""Commands on the books: balances, settlement, audit, seals, archive."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg

from ..business_days import day_of
from ..core.accounting.seals import Seal
from ..ledger.archive import Part, archive
from ..ledger.audit import AuditReport, Finding, audit
from ..ledger.database import wait_until_available
from ..ledger.incremental_audit import Audited, IncrementalReport, audit_incrementally
from ..ledger.seals import SealReport, check_seals, seal_days
from ..ledger.settlement import DayBeforeLedger
from ..settings import Settings
from .command import EXIT_FINDINGS, AddCommand, WrongUsage
from .console import print_out, say
from .ledger_access import database, on_ledger, owner, run_loop
from .operator_acts import balances_text, settle_into


def add_accounting_commands(command: AddCommand) -> None:
    """Add `balances`, `settle`, `audit`, `seal` and `archive`."""
    command("balances", _balances, "show the current balances of merchants and the house")
    settle = command(
        "settle", _settle, "state and pay the amounts due to merchants for a business day; safe to run twice"
    )
    settle.add_argument("--date", type=date.fromisoformat, help="business day, such as 2026-11-23 (default: yesterday)")
    settle.add_argument(
        "--out", type=Path, default=Path(), help="directory of the CSV and the JSON file (default: here)"
    )
    audit_command = command("audit", _audit, "recompute all balances from the rows; exit status 1 on a difference")
    audit_command.add_argument(
        "--incremental", action="store_true", help="audit each sealed day only once, and what is current; run it daily"
    )
    audit_command.add_argument("--seals", action="store_true", help="also check the seals of past days")
    audit_command.add_argument("--expect", metavar="HASH", help="with --seals: last hash, as printed by `seal`")
    audit_command.add_argument("--archive", type=Path, metavar="DIR", help="with --seals: directory of archived parts")
    audit_command.add_argument("--json", action="store_true", help="print the report as JSON")
    audit_command.add_argument("--progress", action="store_true", help="print progress even without a terminal")
    command("seal", _seal, "seal the transfers of past days, so that later changes are detected; run it daily")
    archive_command = command("archive", _archive, "move old payments out of the ledger into files; safe to run twice")
    archive_command.add_argument(
        "--before", type=date.fromisoformat, required=True, help="move payments that were final before this day (UTC)"
    )
    archive_command.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory of the files")


def _balances(arguments: argparse.Namespace, settings: Settings) -> int:
    print_out(on_ledger(settings, balances_text))
    return 0


def _settle(arguments: argparse.Namespace, settings: Settings) -> int:
    now = datetime.now(UTC)
    day = arguments.date or day_of(now, ZoneInfo(settings.time_zone)) - timedelta(days=1)
    try:
        print_out(on_ledger(settings, lambda connection: settle_into(connection, day, now, arguments.out)))
    except DayBeforeLedger as error:
        if arguments.date is not None:
            raise
        say(f"{error}")  # a new ledger's first night is no error
    return 0


def _audit(arguments: argparse.Namespace, settings: Settings) -> int:
    for option, value in (("--expect", arguments.expect), ("--archive", arguments.archive)):
        if value is not None and not arguments.seals:
            raise WrongUsage(f"{option} checks nothing without --seals. Add --seals")
    if arguments.incremental and arguments.seals:
        raise WrongUsage("--incremental and --seals are two commands. Run one after the other")
    with database(settings, "pos-server", must_exist=True) as (dsn, data_dir, _):
        report_progress = say if arguments.progress or sys.stderr.isatty() else _discard
        if arguments.incremental:
            return _show_incremental(run_loop(_audit_new(dsn, settings, data_dir, report_progress)), arguments.json)
        report = run_loop(_audit_once(dsn, settings, data_dir, report_progress))
        check = _check_seals(dsn, settings, data_dir, arguments, report_progress) if arguments.seals else None
        seals = None if check is None else run_loop(check)
    ok = report.ok and (seals is None or seals.ok)
    if arguments.json:
        sealed = {} if seals is None else {"seals": asdict(seals) | {"last_hash": seals.last_hash.hex()}}
        print_out(json.dumps({"audit": "ok" if ok else "failed", **asdict(report), **sealed}))
    else:
        print_out(audit_text(report))
        if seals is not None:
            print_out(seals_text(seals))
    return 0 if ok else EXIT_FINDINGS


def _show_incremental(report: IncrementalReport, as_json: bool) -> int:
    if as_json:
        print_out(json.dumps({"audit": "ok" if report.ok else "failed", **asdict(report)}))
    else:
        print_out(incremental_text(report))
    return 0 if report.ok else EXIT_FINDINGS


def _seal(arguments: argparse.Namespace, settings: Settings) -> int:
    def progress(seal: Seal) -> None:
        say(f"sealed {seal.day}: {seal.transfers} transfers")

    async def seal(connection: asyncpg.Connection) -> str:
        last_hash = await seal_days(connection, datetime.now(UTC), settings.time_zone, progress)
        say("Keep this hash in another place: `pos-server audit --seals --expect HASH` proves all days up to it.")
        return last_hash.hex()

    print_out(on_ledger(settings, seal))
    return 0


def _archive(arguments: argparse.Namespace, settings: Settings) -> int:
    def progress(part: Part) -> None:
        say(f"wrote {arguments.out / part.file}: {part.payments} payments, {part.transfers} transfers")

    async def move(connection: asyncpg.Connection) -> str:
        parts = await archive(
            connection,
            arguments.before,
            arguments.out,
            datetime.now(UTC),
            progress,
            min_age=timedelta(days=settings.archive_min_age_days),
            part_payments_max=settings.archive_part_payments_max,
        )
        payments, refunds, transfers = (
            sum(getattr(part, name) for part in parts) for name in ("payments", "refunds", "transfers")
        )
        return f"archived in {len(parts)} parts: {payments} payments, {refunds} refunds, {transfers} transfers"

    print_out(on_ledger(settings, move))
    return 0


def audit_text(report: AuditReport) -> str:
    """Return the report as text for a person."""
    checked_rows = f"{report.payments} payments, {report.transfers} transfers, {report.wallets} wallets"
    if report.archived_payments:
        checked_rows += f" (and {report.archived_payments} payments in the archive)"
    if report.ok:
        return f"audit ok: {checked_rows}"
    return _failed_text(checked_rows, report.findings)


def incremental_text(report: IncrementalReport) -> str:
    """Return the report of an incremental audit as text for a person."""
    now = sum(seal.transfers for seal in report.proved)
    proved = (
        f"{len(report.proved)} seals with {now} transfers proved now, {report.seals} with {report.transfers} in all"
    )
    day = f", up to {report.last_day}" if report.last_day else ""
    text = f"{proved}{day}; {report.later_transfers} later transfers are not proved yet"
    if report.ok:
        return f"incremental audit ok: {text}"
    stop = "" if report.unproved_seal is None else f"stopped at seal {report.unproved_seal}; "
    return _failed_text(stop + text, report.findings)


def _failed_text(checked: str, findings: list[Finding]) -> str:
    lines = [f"AUDIT FAILED: {checked}"]
    lines += [f"  {finding.meaning}: {', '.join(finding.offenders)}" for finding in findings]
    return "\n".join(lines)


def seals_text(report: SealReport) -> str:
    """Return the result of the seal check as text for a person."""
    if report.ok:
        return f"seals ok: {report.seals} seals over {report.transfers} transfers, last hash {report.last_hash.hex()}"
    return "\n".join(["SEALS BROKEN:", *(f"  {problem}" for problem in report.problems)])


async def _check_seals(
    dsn: str,
    settings: Settings,
    data_dir: Path | None,
    arguments: argparse.Namespace,
    report_progress: Callable[[str], None],
) -> SealReport:
    def progress(seal: Seal) -> None:
        report_progress(f"checked {seal.day}: {seal.transfers} transfers")

    async with owner(dsn, settings, data_dir) as connection:
        return await check_seals(connection, progress, arguments.expect, arguments.archive)


async def _audit_once(
    dsn: str, settings: Settings, data_dir: Path | None, report_progress: Callable[[str], None]
) -> AuditReport:
    def progress(check: str, seconds: float | None) -> None:
        report_progress(f"{check} …" if seconds is None else f"{check}: {seconds:.1f} s")

    await _wait(dsn, settings)
    async with owner(dsn, settings, data_dir) as connection:
        return await audit(connection, progress)


async def _audit_new(
    dsn: str, settings: Settings, data_dir: Path | None, report_progress: Callable[[str], None]
) -> IncrementalReport:
    def progress(seal: Audited) -> None:
        report_progress(f"audited {seal.day}: {seal.transfers} transfers, {seal.payments} payments")

    await _wait(dsn, settings)
    async with owner(dsn, settings, data_dir) as connection:
        return await audit_incrementally(connection, datetime.now(UTC), progress)


async def _wait(dsn: str, settings: Settings) -> None:
    await wait_until_available(
        dsn,
        attempts=settings.database_start_attempts,
        timeout_s=settings.database_connect_timeout_s,
        pause_s=settings.database_start_pause_s,
    )


def _discard(text: str) -> None:
    """Print nothing, because stderr is not a terminal."""
