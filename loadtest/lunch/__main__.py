"""Run the store day: a server with a Postgres of its own, locust, the audit, a report and the objectives.

`make loadtest STORES=20 MINUTES=3`. `--restart` stops the server in the middle of the day and starts it again on the
same port and database, without a failed payment. `--url` tests a running server instead, without its CPU, memory and
audit. The exit status is 0 if all objectives are met, otherwise 1. See docs/loadtest.md.
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
# Fraction of the day, during the rush.
_RESTART_AT = 0.5
_LOG_LINES = 40
_LOCUST_STOP_TIMEOUT_S = 10


class OwnServer:
    """A server of this test's own, which can be restarted on the same port and database."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._running = AsyncExitStack()
        self.url = ""
        self.pid = 0

    async def start(self) -> None:
        """Start the server, the first time on any free port."""
        port = urlsplit(self.url).port or 0
        command: list[str | Path] = [POS_SERVER, "run", "--port", str(port)]
        server = await self._running.enter_async_context(serving(command, POS_DATABASE_URL=self._dsn))
        self.url, self.pid = server.url, server.pid

    async def stop(self) -> None:
        """Send SIGTERM and wait for the end."""
        await self._running.aclose()

    async def restart(self, method: str) -> None:
        """Stop the server by `sigterm` or `kill`, and start it again."""
        if method == "kill":
            os.kill(self.pid, signal.SIGKILL)
        await self.stop()
        await self.start()


async def run(arguments: argparse.Namespace) -> int:
    """Run the test and return the exit status."""
    folder = Path(tempfile.mkdtemp(prefix="pos-lunch-"))
    try:
        test = _test_remote_server if arguments.url else _test_own_server
        record, watch, audit = await test(arguments, folder / "record.json")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    figures = figures_of(record, watch.observations) | {
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
    write_report(arguments.html, figures, objectives, record, watch.observations)
    if arguments.json:
        figures["objectives"] = {objective.meaning: objective.is_met for objective in objectives}
        arguments.json.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    _print_verdict(arguments.html, figures, objectives)
    return 0 if all(objective.is_met for objective in objectives) else 1


async def _test_remote_server(arguments: argparse.Namespace, out: Path) -> tuple[dict[str, Any], Watch, None]:
    if not arguments.admin_key:
        raise SystemExit(f"--url requires an admin key of that server: use --admin-key or {ADMIN_KEY_VARIABLE}")
    if arguments.restart:
        raise SystemExit("--restart cannot restart the server at --url: omit one of them")
    watch = Watch(arguments.url.rstrip("/"), arguments.metrics_token)
    return await _play(arguments, watch, arguments.admin_key, None, out), watch, None


async def _test_own_server(arguments: argparse.Namespace, out: Path) -> tuple[dict[str, Any], Watch, str]:
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
        except SystemExit as failure:
            return record, watch, str(failure)


async def _play(
    arguments: argparse.Namespace, watch: Watch, admin_key: str, server: OwnServer | None, out: Path
) -> dict[str, Any]:
    """Run locust to its end and return its record. Raises SystemExit if there is none."""
    async with locust_running(arguments, watch.url, admin_key, out) as process, watching(watch):
        watch.locust_pid = process.pid
        lines: deque[str] = deque(maxlen=_LOG_LINES)
        restart = None
        if process.stderr is None:
            raise AssertionError("stderr is a pipe")
        async for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip()
            lines.append(line)
            if "/lunch: " in line:
                print_progress(line.partition("/lunch: ")[2])
            if arguments.restart and server is not None and restart is None and "the day begins" in line:
                restart = asyncio.create_task(_restart_in_the_middle(arguments, watch, server))
        await process.wait()
        if restart is not None:
            await restart
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
    """Run locust without its UI in a process of its own, stopped at the end of the block."""
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
                async with asyncio.timeout(_LOCUST_STOP_TIMEOUT_S):
                    await process.communicate()
            except TimeoutError:
                process.kill()
                await process.wait()


async def _restart_in_the_middle(arguments: argparse.Namespace, watch: Watch, server: OwnServer) -> None:
    await asyncio.sleep(60 * arguments.minutes * _RESTART_AT)
    print_progress(f"restarting the server ({arguments.restart}) …")
    await server.restart(arguments.restart)
    watch.server_pid = server.pid
    print_progress("the server is running again")


def _print_verdict(html: Path, figures: dict[str, Any], objectives: list[Objective]) -> None:
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
        raise argparse.ArgumentTypeError("must be greater than 0")
    return value


def _count(minimum: int) -> Any:
    def count(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}")
        return value

    return count


def option_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="the store at lunchtime: latencies of tills and wallets over a day")
    parser.add_argument("--stores", type=_count(1), default=20, help="stores of one merchant (default 20)")
    parser.add_argument("--tills", type=_count(1), default=5, help="tills per store (default 5)")
    parser.add_argument("--wallets", type=_count(2), default=8, help="customers per till (default 8)")
    parser.add_argument("--minutes", type=_positive, default=3.0, help="duration from morning to evening (default 3)")
    parser.add_argument("--speed", type=_positive, default=1.0, help="divides the time that people take (default 1)")
    parser.add_argument("--restart", choices=["sigterm", "kill"], help="stop the server in the middle, start it again")
    parser.add_argument("--url", help="test the server at this URL, instead of one of this test's own")
    parser.add_argument(
        "--admin-key",
        default=os.environ.get(ADMIN_KEY_VARIABLE),
        help=f"admin key of that server; better in {ADMIN_KEY_VARIABLE}",
    )
    parser.add_argument(
        "--metrics-token",
        default=os.environ.get(METRICS_TOKEN_VARIABLE),
        help=f"its {METRICS_TOKEN_VARIABLE}, for the server's own figures in the report; better in that variable",
    )
    parser.add_argument(
        "--p99-ms-max", type=_positive, default=250.0, help="objective for scan → terminal (default 250)"
    )
    parser.add_argument(
        "--outside-ms-max",
        type=_positive,
        default=50.0,
        help="objective for a till's wait beyond the server's own time (default 50)",
    )
    parser.add_argument(
        "--error-share-max", type=float, default=0.001, help="objective for failed steps (default 0.001)"
    )
    parser.add_argument(
        "--html", type=Path, default=Path("loadtest.html"), help="file for the report (default loadtest.html)"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser


def main() -> None:
    """Run the command line."""
    try:
        raise SystemExit(asyncio.run(run(option_parser().parse_args())))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
