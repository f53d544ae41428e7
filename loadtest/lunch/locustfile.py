"""The store at lunchtime, for locust: tills and wallets of several stores on real WebSockets. See docs/loadtest.md.

A locust user is a till with its cashier. The wallets are connected all day and come to the till one after the other.
With workers, each has some of the tills and exactly their customers, so that one clock measures both ends of a payment.
The master opens the stores, distributes the devices, and checks the books at the end.
"""

import gc
import json
import logging
import os
import sys
import time
from argparse import ArgumentParser
from dataclasses import astuple
from pathlib import Path
from typing import Any

import gevent
from locust import LoadTestShape, User, events, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

sys.path.insert(0, str(Path(__file__).parents[2]))  # locust adds only the folder of this file

from loadtest.lunch import plan
from loadtest.lunch.back_office import ADMIN_KEY_VARIABLE, run_back_office
from loadtest.lunch.hall import Hall, share_of
from loadtest.lunch.outcomes import Failure
from loadtest.lunch.recorder import REQUEST_TYPE, Measurements, Recorder

_log = logging.getLogger("lunch")
# A till that closes serves its current customer first, even during an outage.
_STOP_TIMEOUT_S = 180.0
_TILLS_OPENED_PER_S = 20.0
# Locust stops this many users at once and waits for all of them, so a small number would delay the others.
_TILLS_CLOSED_PER_S = 100.0
_PROGRESS_S = 5.0


@events.init_command_line_parser.add_listener
def _options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group(
        "The stores", f"The environment variable {ADMIN_KEY_VARIABLE} must hold an admin key."
    )
    group.add_argument("--stores", type=int, default=20, help="stores of one merchant")
    group.add_argument("--tills", type=int, default=5, help="tills per store")
    group.add_argument("--wallets", type=int, default=8, help="customers per till")
    group.add_argument("--minutes", type=float, default=3.0, help="duration from morning to evening")
    group.add_argument("--speed", type=float, default=1.0, help="divides the time that people take")
    group.add_argument("--record", default="", help="write all measurements to this file, as JSON")


class Lunch:
    """The state of the test in this process. `measurements` is empty on a worker, `hall` is None on a master."""

    def __init__(self) -> None:
        self.recorder = Recorder(events.request.fire)
        self.measurements = Measurements()
        self.hall: Hall | None = None
        self.stores: dict[str, Any] = {}
        self.busy_workers: set[str] = set()
        self.start_s = 0.0


lunch = Lunch()


class Till(User):
    """An open till that serves one customer after the other."""

    def wait_time(self) -> float:
        return self._checkout.think_s(plan.NEXT_CUSTOMER_S)

    def on_start(self) -> None:
        while lunch.hall is None:
            gevent.sleep(0.1)
        self._hall = lunch.hall
        self._hall.is_open.wait()
        self._store, self._till, self._checkout = self._hall.take_till()
        self._till.connect()

    def on_stop(self) -> None:
        if hasattr(self, "_till"):
            self._hall.leave_till(self._store, self._till)

    @task
    def customer(self) -> None:
        try:
            self._hall.serve_next(self._store, self._checkout)
        except Failure as failure:
            _log.error("till: %s", failure)


class Day(LoadTestShape):
    """The number of open tills: morning, lunch rush, evening, then none until the last customer is served."""

    def tick(self) -> tuple[int, float] | None:
        options = self.runner.environment.parsed_options
        tills = options.stores * options.tills
        fraction = self.get_run_time() / (60 * options.minutes)
        if not lunch.start_s:
            fraction = 0.0  # the stores are still being opened
        if fraction < 1:
            open_tills = plan.tills_open(fraction, tills)
            return open_tills, _TILLS_OPENED_PER_S if open_tills > self.runner.user_count else _TILLS_CLOSED_PER_S
        if self.runner.user_count or lunch.busy_workers:
            return 0, _TILLS_CLOSED_PER_S
        return None


@events.init.add_listener
def _init(environment: Environment, **_: Any) -> None:
    runner = environment.runner
    environment.stop_timeout = max(environment.stop_timeout, _STOP_TIMEOUT_S)
    if isinstance(runner, WorkerRunner):
        runner.register_message("devices", _on_devices)
    else:
        if not os.environ.get(ADMIN_KEY_VARIABLE):
            raise SystemExit(f"{ADMIN_KEY_VARIABLE} is not set: create a key with pos-server keys create --role admin")
        if isinstance(runner, MasterRunner):
            runner.register_message("measured", _on_measured)
            events.worker_report.add_listener(lambda client_id, data: _on_report(client_id, data["lunch"]))


@events.test_start.add_listener
def _on_start(environment: Environment, **_: Any) -> None:
    runner, options = environment.runner, environment.parsed_options
    if isinstance(runner, WorkerRunner):
        return
    host = (environment.host or "http://127.0.0.1:8080").rstrip("/")
    lunch.measurements, lunch.start_s = Measurements(), 0.0
    _log.info("opening %d stores at %s …", options.stores, host)
    sizes = {"stores": options.stores, "tills": options.tills, "wallets": options.wallets}
    lunch.stores = run_back_office({"action": "open", "url": host, **sizes}) | {"url": host}
    if isinstance(runner, MasterRunner):
        workers = [client.id for client in runner.clients.ready]
        for index, client_id in enumerate(workers):
            share = share_of(lunch.stores, index, len(workers))
            runner.send_message("devices", {"url": host, "share": share, "speed": options.speed}, client_id)
        lunch.busy_workers = set(workers)
    else:
        _open(host, share_of(lunch.stores, 0, 1), options.speed)
    lunch.start_s = time.time()
    environment.shape_class.reset_time()
    _log.info("the day begins")
    gevent.spawn(_progress, environment)


def _progress(environment: Environment) -> None:
    """Log a line every few seconds until the test ends."""
    start_s = lunch.start_s
    previous_scans = 0
    while True:
        gevent.sleep(_PROGRESS_S)
        if lunch.start_s != start_s:
            return
        if lunch.hall is not None:
            lunch.measurements.add(lunch.recorder.drain())
        elapsed_s = time.time() - start_s
        scans = environment.stats.get("scan → terminal", REQUEST_TYPE)
        _log.info(
            "%4.0f s, %s: %d tills open, %.1f payments/s, scan → terminal p99 %s ms, %d failures",
            elapsed_s,
            plan.hours_at(elapsed_s / (60 * environment.parsed_options.minutes)).name,
            environment.runner.user_count,
            (scans.num_requests - previous_scans) / _PROGRESS_S,
            scans.get_current_response_time_percentile(0.99),
            environment.stats.total.num_failures,
        )
        previous_scans = scans.num_requests


def _on_devices(environment: Environment, msg: Any, **_: Any) -> None:
    gevent.spawn(_open, msg.data["url"], msg.data["share"], msg.data["speed"])


def _open(url: str, share: dict[str, Any], speed: float) -> None:
    lunch.recorder.drain()
    hall = Hall(url, share, lunch.recorder, speed)
    hall.open()
    # A garbage collection over all objects of the opening would add a pause to the latencies.
    gc.collect()
    gc.freeze()
    lunch.hall = hall
    _log.info("all wallets are connected")


@events.report_to_master.add_listener
def _report(data: dict[str, Any], **_: Any) -> None:
    data["lunch"] = lunch.recorder.drain() | {"is_busy": lunch.hall is None or lunch.hall.is_busy}


def _on_report(client_id: str, data: dict[str, Any]) -> None:
    lunch.measurements.add(data)
    if data["is_busy"]:
        lunch.busy_workers.add(client_id)
    else:
        lunch.busy_workers.discard(client_id)


def _on_measured(environment: Environment, msg: Any, **_: Any) -> None:
    lunch.measurements.add(msg.data)


@events.test_stop.add_listener
def _on_stop(environment: Environment, **_: Any) -> None:
    runner, options = environment.runner, environment.parsed_options
    if lunch.hall is not None:
        lunch.hall.close()
        lunch.hall = None
    if isinstance(runner, WorkerRunner):
        runner.send_message("measured", lunch.recorder.drain())
        # All users have stopped. Locust would wait this long again before the next test.
        environment.stop_timeout = 0.0
        return
    lunch.measurements.add(lunch.recorder.drain())
    if not lunch.start_s:
        return
    end_s = time.time()
    start_s, lunch.start_s = lunch.start_s, 0.0
    books = run_back_office(
        {
            "action": "check",
            "url": lunch.stores["url"],
            "merchant_id": lunch.stores["merchant_id"],
            "payments": [astuple(payment) for payment in lunch.measurements.payments],
            "balances": {wallet["number"]: wallet["balance_minor"] for wallet in lunch.stores["wallets"]},
        }
    )
    if books["problems"]:
        _log.error("the books disagree: %d problems, the first are %s", books["problems"], books["first"])
        environment.process_exit_code = 1
    else:
        _log.info("the books agree: %d payments, %d wallets", books["payments"], books["wallets"])
    if options.record:
        Path(options.record).write_text(json.dumps(_record(environment, books, start_s, end_s)))


def _record(environment: Environment, books: dict[str, Any], start_s: float, end_s: float) -> dict[str, Any]:
    """Return all measurements. `locust` has its own figures, in milliseconds, by step."""
    measurements = lunch.measurements
    return {
        "start_s": start_s,
        "day_s": 60 * environment.parsed_options.minutes,
        "end_s": end_s,
        "books": books,
        "flows": dict(measurements.flows),
        "failures": dict(measurements.failures),
        "outcomes": [(p.status, p.decline_code, round(p.settled_s, 3)) for p in measurements.payments],
        "latencies": {
            name: {"at_s": latencies.at_s.tolist(), "us": latencies.us.tolist()}
            for name, latencies in measurements.latencies.items()
        },
        "locust": {
            entry.name: {
                "count": entry.num_requests,
                "failures": entry.num_failures,
                "p50_ms": entry.get_response_time_percentile(0.5),
                "p99_ms": entry.get_response_time_percentile(0.99),
            }
            for entry in environment.stats.entries.values()
        },
    }
