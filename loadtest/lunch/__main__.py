"""The store at lunchtime, start to end: a server with a Postgres of its own, locust, the audit, a report, a verdict.

`make loadtest STORES=20 MINUTES=3`. `--restart` ends the server in the middle and starts it again on the same port and
database; no payment may fail for that. With `--url` it tests a server that runs already, without its CPU, memory and
audit. The exit status is 0 when all objectives are met, 1 when one is not. docs/loadtest.md says what all of it means.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loadtest.lunch.back_office import ADMIN_KEY_VARIABLE
from loadtest.lunch.figures import figures_of
from loadtest.lunch.objectives import Objective, objectives_of
from loadtest.lunch.report import write_report
from loadtest.lunch.watch import Watch, watching
from loadtest.shared.process import (
    METRICS_TOKEN,
    METRICS_TOKEN_VARIABLE,
    POS_SERVER,
    new_ledger,
    owner_connection,
    print_progress,
    run_pos_server,
    serving,
)
from pos_server.cli.operator_acts import new_key
from pos_server.core.credentials.api_keys import Role

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
# Of the day: in the rush.
_RESTART_AT = 0.5
_LOG_LINES = 40
_LOCUST_ENDS_WITHIN_S = 10


class OwnServer:
    """A server of this test's own, which can be ended and started again at the same port and database."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._running = AsyncExitStack()
        self.url = ""
        self.pid = 0

    async def start(self) -> None:
        """Start it; the first time at any free port."""
        port = urlsplit(self.url).port or 0
        command: list[str | Path] = [POS_SERVER, "run", "--port", str(port)]
        server = await self._running.enter_async_context(serving(command, POS_DATABASE_URL=self._dsn))
        self.url, self.pid = server.url, server.pid

    async def stop(self) -> None:
        """SIGTERM, and wait for its end."""
        await self._running.aclose()

    async def restart(self, how: str) -> None:
        """End it in this way, `sigterm` or `kill`, and start it again."""
        if how == "kill":
            os.kill(self.pid, signal.SIGKILL)
        await self.stop()
        await self.start()


async def run(arguments: argparse.Namespace) -> int:
    """The whole test; returns the exit status."""
    folder = Path(tempfile.mkdtemp(prefix="pos-lunch-"))
    try:
        record, watch, audit = await (_at_theirs if arguments.url else _at_our_own)(arguments, folder / "record.json")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    figures = figures_of(record, watch.looks) | {
        "stores": arguments.stores,
        "tills": arguments.stores * arguments.tills,
        "wallets": arguments.stores * arguments.tills * arguments.wallets,
        "minutes": arguments.minutes,
        "speed": arguments.speed,
        "restart": arguments.restart,
        "audit": audit,
    }
    objectives = objectives_of(
        figures,
        error_share_max=arguments.error_share_max,
        p99_ms_max=arguments.p99_ms_max,
        outside_ms_max=arguments.outside_ms_max,
    )
    write_report(arguments.html, figures, objectives, record, watch.looks)
    if arguments.json:
        figures["objectives"] = {objective.meaning: objective.is_met for objective in objectives}
        arguments.json.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    _say_verdict(arguments.html, figures, objectives)
    return 0 if all(objective.is_met for objective in objectives) else 1


async def _at_theirs(arguments: argparse.Namespace, out: Path) -> tuple[dict[str, Any], Watch, None]:
    if not arguments.admin_key:
        raise SystemExit(f"give an admin key of that server: --admin-key, or {ADMIN_KEY_VARIABLE}")
    if arguments.restart:
        raise SystemExit("--restart is for a server of this test's own: leave --url out")
    watch = Watch(arguments.url.rstrip("/"), arguments.metrics_token)
    return await _play(arguments, watch, arguments.admin_key, None, out), watch, None


async def _at_our_own(arguments: argparse.Namespace, out: Path) -> tuple[dict[str, Any], Watch, str]:
    async with new_ledger() as (dsn, data_dir):
        server = OwnServer(dsn)
        try:
            await server.start()
            async with owner_connection(dsn) as connection:
                admin_key = await new_key(connection, Role.ADMIN, None, "load test")
            watch = Watch(server.url, METRICS_TOKEN, dsn, data_dir, server.pid)
            record = await _play(arguments, watch, admin_key, server, out)
        finally:
            await server.stop()
        print_progress("audit …")
        try:
            return record, watch, await run_pos_server(data_dir, "audit")
        except SystemExit as failed:
            return record, watch, str(failed)


async def _play(
    arguments: argparse.Namespace, watch: Watch, admin_key: str, server: OwnServer | None, out: Path
) -> dict[str, Any]:
    """Run locust to its end; returns what it recorded. Raises SystemExit when there is nothing."""
    async with locust_running(arguments, watch.url, admin_key, out) as process, watching(watch):
        watch.locust_pid = process.pid
        lines: deque[str] = deque(maxlen=_LOG_LINES)
        restarting = None
        if process.stderr is None:
            raise AssertionError("stderr is a pipe")
        async for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip()
            lines.append(line)
            if "/lunch: " in line:
                print_progress(line.partition("/lunch: ")[2])
            if arguments.restart and server is not None and restarting is None and "the day begins" in line:
                restarting = asyncio.create_task(_restart_in_the_middle(arguments, watch, server))
        await process.wait()
        if restarting is not None:
            await restarting
    record = _read(out)
    if record is None:
        raise SystemExit("\n".join(["locust failed; its last lines:", *lines]))
    return record


def _read(path: Path) -> dict[str, Any] | None:
    record: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return record


@asynccontextmanager
async def locust_running(
    arguments: argparse.Namespace, url: str, admin_key: str, out: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Locust without its UI, in a process of its own; stopped with the block."""
    options = {
        "--locustfile": _LOCUSTFILE,
        "--host": url,
        "--stores": arguments.stores,
        "--tills": arguments.tills,
        "--wallets": arguments.wallets,
        "--minutes": arguments.minutes,
        "--speed": arguments.speed,
        "--record": out,
        "--html": arguments.html.with_suffix(".locust.html"),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", "--headless", "--only-summary"),
        *(str(part) for option in options.items() for part in option),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {ADMIN_KEY_VARIABLE: admin_key},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(_LOCUST_ENDS_WITHIN_S):
                    await process.communicate()
            except TimeoutError:
                process.kill()
                await process.wait()


async def _restart_in_the_middle(arguments: argparse.Namespace, watch: Watch, server: OwnServer) -> None:
    await asyncio.sleep(60 * arguments.minutes * _RESTART_AT)
    print_progress(f"the server is ended ({arguments.restart}) and started again …")
    await server.restart(arguments.restart)
    watch.server_pid = server.pid
    print_progress("it is back")


def _say_verdict(html: Path, figures: dict[str, Any], objectives: list[Objective]) -> None:
    print_progress(
        f"\n{figures['payments']} payments, {figures['payments_per_s_rush']:.1f}/s in the rush;"
        f" scan → terminal p50 {figures['scan_terminal_p50_ms']} ms, p99 {figures['scan_terminal_p99_ms']} ms"
    )
    for problem, count in figures["failures"].items():
        print_progress(f"  failed: {problem} ({count})")
    for problem in figures["books"]["first"]:
        print_progress(f"  books: {problem}")
    for objective in objectives:
        print_progress(f"  {'met   ' if objective.is_met else 'MISSED'}  {objective.meaning}: {objective.measured}")
    print_progress(f"report: {html}")


def _positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def _count(least: int) -> Any:
    def count(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}")
        return value

    return count


def parser_of_options() -> argparse.ArgumentParser:
    """The command line's."""
    parser = argparse.ArgumentParser(description="the store at lunchtime: what the tills and wallets of stores see")
    parser.add_argument("--stores", type=_count(1), default=20, help="stores of one merchant (20)")
    parser.add_argument("--tills", type=_count(1), default=5, help="tills of a store (5)")
    parser.add_argument("--wallets", type=_count(2), default=8, help="customers who live near a till (8)")
    parser.add_argument("--minutes", type=_positive, default=3.0, help="from morning to evening (3)")
    parser.add_argument("--speed", type=_positive, default=1.0, help="divides the time that people take to think (1)")
    parser.add_argument("--restart", choices=["sigterm", "kill"], help="end the server in the middle, start it again")
    parser.add_argument("--url", help="test the server there, instead of one of this test's own")
    parser.add_argument(
        "--admin-key", default=os.environ.get(ADMIN_KEY_VARIABLE), help=f"its key; better in {ADMIN_KEY_VARIABLE}"
    )
    parser.add_argument(
        "--metrics-token",
        default=os.environ.get(METRICS_TOKEN_VARIABLE),
        help=f"its {METRICS_TOKEN_VARIABLE}, for the server's own figures in the report; better in that variable",
    )
    parser.add_argument("--p99-ms-max", type=_positive, default=250.0, help="objective for scan → terminal (250)")
    parser.add_argument(
        "--outside-ms-max",
        type=_positive,
        default=50.0,
        help="objective for what a till waits beyond the server's own time (50)",
    )
    parser.add_argument("--error-share-max", type=float, default=0.001, help="objective for failed steps (0.001)")
    parser.add_argument("--html", type=Path, default=Path("loadtest.html"), help="the report (loadtest.html)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser


def main() -> None:
    """Command line."""
    try:
        raise SystemExit(asyncio.run(run(parser_of_options().parse_args())))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
