"""`pos-server`: its commands. Errors are one line on stderr that says what to do next."""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from zoneinfo import ZoneInfo

import asyncpg
import uvloop

from ..api.asyncapi import asyncapi_json
from ..api.openapi import openapi_json
from ..core.accounting.seals import Seal
from ..core.credentials.api_keys import Role
from ..core.errors import PosError
from ..ledger.archive import Part, archive
from ..ledger.audit import AuditReport, audit
from ..ledger.database import connect, libpq_environment, wait_until_available, where
from ..ledger.migrate import MigrationError, load_migrations, migrate
from ..ledger.seals import SealReport, check_seals, seal_days
from ..master_keys import keyring_for
from ..postgres.binaries import program
from ..postgres.embedded import EmbeddedPostgres, EmbeddedPostgresError, default_data_dir, give_way
from ..programs import pasteable
from ..server import serving
from ..settings import Settings, load_settings, new_master_key
from ..telemetry.logs import configure_logging
from .operator_commands import ACTIONS, act, balances_text, change_terms, end_key, keys_text, new_key, settle_into

EXIT_FINDINGS = 1
EXIT_ERROR = 3
Result = TypeVar("Result")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status: 0 fine, 1 the audit found something, 2 usage, 3 an error."""
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _terminated)
    configure_logging("warning" if arguments.run is _demo else "info")
    try:
        settings = load_settings(
            host=getattr(arguments, "host", None), port=getattr(arguments, "port", None), data_dir=arguments.data_dir
        )
        status: int = arguments.run(arguments, settings)
    except (PosError, EmbeddedPostgresError) as error:
        say(f"pos-server: {error}")
        return EXIT_ERROR
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError) as error:
        say(f"pos-server: the database failed: {error}. Nothing is half done; start again when it is well.")
        return EXIT_ERROR
    except KeyboardInterrupt:
        return 130
    return status


def say(text: str) -> None:
    """A line for the person at the terminal."""
    print(pasteable(text), file=sys.stderr, flush=True)  # noqa: T201


def _say_nothing(text: str) -> None:
    """Nobody is at the terminal."""


def print_out(text: str) -> None:
    """A line of the command's result."""
    print(text, flush=True)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pos-server",
        description="A real-time point-of-sale payment backend. Settings come from POS_… environment variables; "
        "without POS_DATABASE_URL it runs a Postgres of its own in --data-dir.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace, Settings], int], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.add_argument("--data-dir", type=Path, help="where keys and the embedded Postgres live")
        made.set_defaults(run=run)
        return made

    run = command("run", _run, "serve terminals and wallets until SIGTERM")
    demo = command("demo", _demo, "play a short store day against a real server, then keep serving")
    for serving_command in (run, demo):
        serving_command.add_argument("--host", help="address to listen on (127.0.0.1)")
        serving_command.add_argument("--port", type=int, help="port to listen on (8080; 0 takes a free one)")
    demo.add_argument("--once", action="store_true", help="exit after the play")
    demo.add_argument("--json", action="store_true", help="print one JSON summary on standard output")
    command("migrate", _migrate, "bring the database's schema up to date")
    audit_command = command("audit", _audit, "prove from the rows that the money is right; exit 1 if it is not")
    audit_command.add_argument("--seals", action="store_true", help="check the seals of past days too")
    audit_command.add_argument("--expect", metavar="HASH", help="with --seals: the last hash, as `seal` printed it")
    audit_command.add_argument("--archive", type=Path, metavar="DIR", help="with --seals: where archived parts are")
    audit_command.add_argument("--json", action="store_true", help="print the report as JSON")
    audit_command.add_argument("--progress", action="store_true", help="say what it does, also when nobody watches")
    for kind, actions in ACTIONS.items():
        what = command(kind, _act, f"{', '.join(actions)}: takes effect with the next payment")
        what.add_argument("number", type=int, help=f"the {kind}'s number")
        what.add_argument("action", choices=list(actions))
        what.set_defaults(kind=kind)
    keys = command("keys", _keys, "API keys: create, list, revoke")
    keys.add_argument("action", choices=["create", "list", "revoke"])
    keys.add_argument("id", type=int, nargs="?", help="which key to revoke")
    keys.add_argument("--role", type=Role, choices=list(Role), help="what it may do; merchant if --merchant is given")
    keys.add_argument("--merchant", type=int, help="whose key to create")
    keys.add_argument("--name", default="back office", help="what the key is for")
    terms = command("terms", _terms, "show or change a merchant's fee and when its business day ends")
    terms.add_argument("merchant", type=int, help="the merchant's id")
    terms.add_argument("--fee-bps", type=int, help="of a sale, in hundredths of a percent")
    terms.add_argument("--fee-fixed", type=int, metavar="MINOR", help="of a sale, in minor units")
    terms.add_argument("--time-zone", help="IANA name, such as Europe/Berlin")
    terms.add_argument("--cut-off", type=time.fromisoformat, help="when its business day ends, such as 04:00")
    command("balances", _balances, "what merchants and the house hold now")
    settling = command("settle", _settle, "state and pay what merchants are owed for a business day; safe to run twice")
    settling.add_argument("--date", type=date.fromisoformat, help="the business day, such as 2026-11-23 (yesterday)")
    settling.add_argument("--out", type=Path, default=Path(), help="where the CSV and the JSON file go (here)")
    command("seal", _seal, "seal the transfers of past days, so that a later change is found; for a daily timer")
    postgres = command(
        "postgres", _postgres, "run a program of Postgres on our own one: psql, pg_dump, pg_basebackup …"
    )
    postgres.add_argument("--new", action="store_true", help="make an empty Postgres in --data-dir, to restore into")
    postgres.add_argument("program", help="its name, such as pg_dump")
    postgres.add_argument("arguments", nargs=argparse.REMAINDER, help="what it is given")
    archiving = command("archive", _archive, "move old payments out of the ledger into files; safe to run twice")
    archiving.add_argument(
        "--before", type=date.fromisoformat, required=True, help="take what was final before this day (UTC) began"
    )
    archiving.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where the files are, and new ones go"
    )
    command("master-key", _master_key, "make a master key for POS_MASTER_KEYS")
    command("openapi", _openapi, "print the REST API for tools, as OpenAPI 3.1 in JSON")
    command("asyncapi", _asyncapi, "print the WebSocket protocol for tools, as AsyncAPI 3 in JSON")
    return parser


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    with database(settings, "pos-server") as (dsn, data_dir):
        keyring = keyring_for(settings, data_dir)

        async def serve() -> int:
            await prepare(dsn, settings)
            async with serving(settings, keyring, dsn) as server:
                say(f"pos-server serves {server.url} (data: {data_dir or where(dsn)}). Stop it with Ctrl-C or SIGTERM.")
                await server.stop_wanted()
                say("stopping: finishing what was accepted …")
            return 0

        return run_loop(serve())


def _demo(arguments: argparse.Namespace, settings: Settings) -> int:
    from ..demo import run_demo

    if arguments.once and arguments.port is None:
        settings = settings.model_copy(update={"port": 0})
    with database(settings, "pos-server-demo") as (dsn, data_dir):
        keyring = keyring_for(settings, data_dir)

        async def play() -> int:
            try:
                await prepare(dsn, settings)
            except MigrationError as error:
                if data_dir is None:
                    raise
                raise MigrationError(f"{error}; or delete {data_dir}: the demo's money is play money") from error
            return await run_demo(settings, keyring, dsn, data_dir, once=arguments.once, as_json=arguments.json)

        return run_loop(play())


def _migrate(arguments: argparse.Namespace, settings: Settings) -> int:
    with database(settings, "pos-server") as (dsn, _):
        applied = run_loop(prepare(dsn, settings))
    for name in applied:
        print_out(f"applied {name}")
    if not applied:
        print_out("the database is up to date")
    return 0


def _audit(arguments: argparse.Namespace, settings: Settings) -> int:
    with database(settings, "pos-server", must_exist=True) as (dsn, data_dir):
        tell = say if arguments.progress or sys.stderr.isatty() else _say_nothing
        report = run_loop(_audit_once(dsn, settings, data_dir, tell))
        check = _check_seals(dsn, settings, data_dir, arguments, tell) if arguments.seals else None
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


def _terms(arguments: argparse.Namespace, settings: Settings) -> int:
    changes = {
        "fee_bps": arguments.fee_bps,
        "fee_fixed_minor": arguments.fee_fixed,
        "time_zone": arguments.time_zone,
        "cut_off": arguments.cut_off,
    }
    print_out(_at_desk(settings, lambda connection: change_terms(connection, arguments.merchant, **changes)))
    return 0


def _balances(arguments: argparse.Namespace, settings: Settings) -> int:
    print_out(_at_desk(settings, balances_text))
    return 0


def _settle(arguments: argparse.Namespace, settings: Settings) -> int:
    now = datetime.now(UTC)
    day = arguments.date or now.astimezone(ZoneInfo(settings.time_zone)).date() - timedelta(days=1)
    print_out(_at_desk(settings, lambda connection: settle_into(connection, day, now, arguments.out)))
    return 0


def _seal(arguments: argparse.Namespace, settings: Settings) -> int:
    def progress(seal: Seal) -> None:
        say(f"sealed {seal.day}: {seal.transfers} transfers")

    async def seal(connection: asyncpg.Connection) -> str:
        last_hash = await seal_days(connection, datetime.now(UTC), settings.time_zone, progress)
        say("Keep this hash elsewhere: `pos-server audit --seals --expect HASH` vouches for all days before it.")
        return last_hash.hex()

    print_out(_at_desk(settings, seal))
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

    print_out(_at_desk(settings, move))
    return 0


def _act(arguments: argparse.Namespace, settings: Settings) -> int:
    print_out(
        _at_desk(settings, lambda connection: act(connection, arguments.kind, arguments.action, arguments.number))
    )
    return 0


def _keys(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.action == "list":
        print_out(_at_desk(settings, keys_text))
    elif arguments.action == "revoke":
        if arguments.id is None:
            raise PosError("say which key to revoke: `pos-server keys list` shows their ids")
        print_out(_at_desk(settings, lambda connection: end_key(connection, arguments.id)))
    else:
        role = arguments.role or (Role.MERCHANT if arguments.merchant else None)
        if role is None or (role is Role.MERCHANT) != (arguments.merchant is not None):
            raise PosError("say whose key it is: --merchant ID, --role issuer or --role admin")
        key = _at_desk(settings, lambda connection: new_key(connection, role, arguments.merchant, arguments.name))
        say("This key is shown only now; keep it safe:")
        print_out(key)
    return 0


def _at_desk(settings: Settings, work: Callable[[asyncpg.Connection], Coroutine[Any, Any, str]]) -> str:
    """Do an operator's work on the ledger that is there, as its owner."""
    with database(settings, "pos-server", must_exist=True) as (dsn, data_dir):

        async def at_desk() -> str:
            await prepare(dsn, settings)
            async with _owner(dsn, settings, data_dir) as connection:
                return await work(connection)

        return run_loop(at_desk())


def _postgres(arguments: argparse.Namespace, settings: Settings) -> int:
    if settings.database_url is not None:
        raise PosError(f'with POS_DATABASE_URL run it yourself: {arguments.program} --dbname="$POS_DATABASE_URL" …')
    data_dir = settings.data_dir or default_data_dir("pos-server")
    if arguments.new and (data_dir / "postgres").exists():
        raise EmbeddedPostgresError(f"there is a ledger in {data_dir}: name another directory with --data-dir")
    path = program(arguments.program, settings.postgres_bin_dir)
    with database(settings, "pos-server", must_exist=not arguments.new) as (dsn, _):
        # PG… variables of the operator's shell mean another server, and POS_… may be the master keys.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "POS_"))}
        command = [path, *arguments.arguments]
        return subprocess.run(command, env=kept | libpq_environment(dsn), check=False).returncode  # noqa: S603


def _master_key(arguments: argparse.Namespace, settings: Settings) -> int:
    print_out(new_master_key("k1"))
    return 0


def _openapi(arguments: argparse.Namespace, settings: Settings) -> int:
    print_out(openapi_json().decode().rstrip("\n"))
    return 0


def _asyncapi(arguments: argparse.Namespace, settings: Settings) -> int:
    print_out(asyncapi_json(settings).decode().rstrip("\n"))
    return 0


def audit_text(report: AuditReport) -> str:
    """The report for a person."""
    looked = f"{report.payments} payments, {report.transfers} transfers, {report.wallets} wallets"
    if report.archived_payments:
        looked += f" (and {report.archived_payments} payments in the archive)"
    if report.ok:
        return f"audit ok: {looked}"
    lines = [f"AUDIT FAILED: {looked}"]
    lines += [f"  {finding.meaning}: {', '.join(finding.offenders)}" for finding in report.findings]
    return "\n".join(lines)


def seals_text(report: SealReport) -> str:
    """The seals for a person."""
    if report.ok:
        return f"seals ok: {report.seals} seals over {report.transfers} transfers, last hash {report.last_hash.hex()}"
    return "\n".join(["SEALS BROKEN:", *(f"  {problem}" for problem in report.problems)])


@contextmanager
def database(settings: Settings, app: str, *, must_exist: bool = False) -> Iterator[tuple[str, Path | None]]:
    """The database to use: POS_DATABASE_URL, or a Postgres of our own that runs while the block does.

    Yields its DSN and, for our own, the data directory.
    """
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value(), None
        return
    data_dir = settings.data_dir or default_data_dir(app)
    if must_exist and not (data_dir / "postgres").is_dir():
        raise EmbeddedPostgresError(
            f"there is no ledger in {data_dir}: name its directory with --data-dir, or set POS_DATABASE_URL"
        )
    with EmbeddedPostgres(data_dir, bin_dir=settings.postgres_bin_dir, say=say) as dsn:
        yield dsn, data_dir


async def prepare(dsn: str, settings: Settings) -> list[str]:
    """Wait for the database and bring its schema up to date; returns the migrations applied."""
    await wait_until_available(
        dsn,
        attempts=settings.database_start_attempts,
        timeout_s=settings.database_connect_timeout_s,
        pause_s=settings.database_start_pause_s,
    )
    connection = await connect(dsn, timeout_s=settings.database_connect_timeout_s, role=None)
    try:
        return await migrate(connection, load_migrations())
    finally:
        await connection.close()


@asynccontextmanager
async def _owner(dsn: str, settings: Settings, data_dir: Path | None) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the ledger's owner, for work that may take long: in a Postgres of our own, payments go first."""
    connection = await connect(dsn, timeout_s=settings.database_connect_timeout_s, role=None)
    try:
        if data_dir is not None:
            give_way(connection.get_server_pid())
        yield connection
    finally:
        await connection.close()


async def _check_seals(
    dsn: str, settings: Settings, data_dir: Path | None, arguments: argparse.Namespace, tell: Callable[[str], None]
) -> SealReport:
    def progress(seal: Seal) -> None:
        tell(f"checked {seal.day}: {seal.transfers} transfers")

    async with _owner(dsn, settings, data_dir) as connection:
        return await check_seals(connection, progress, arguments.expect, arguments.archive)


async def _audit_once(dsn: str, settings: Settings, data_dir: Path | None, tell: Callable[[str], None]) -> AuditReport:
    def progress(check: str, seconds: float | None) -> None:
        tell(f"{check} …" if seconds is None else f"{check}: {seconds:.1f} s")

    await wait_until_available(
        dsn,
        attempts=settings.database_start_attempts,
        timeout_s=settings.database_connect_timeout_s,
        pause_s=settings.database_start_pause_s,
    )
    try:
        async with _owner(dsn, settings, data_dir) as connection:
            return await audit(connection, progress)
    except asyncpg.UndefinedTableError:
        raise PosError(f"the database at {where(dsn)} has no ledger yet: run `pos-server migrate` first") from None


def run_loop(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def _terminated(number: int, frame: object) -> NoReturn:
    # Until the server handles the signal itself: unwind, so that Postgres is stopped.
    raise SystemExit(128 + number)
