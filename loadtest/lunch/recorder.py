"""The measurements of one locust process, and of all of them together."""

import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

REQUEST_TYPE = "WS"
# Upper bound of the exact latencies per step, for a locust that runs for days. Locust's own figures have all.
LATENCIES_MAX = 2_000_000


@dataclass(slots=True)
class PaymentRecord:
    """A payment as its till knows it: `unknown` until its result arrives, at `settled_s` (Unix seconds)."""

    payment_id: str
    wallet_number: int
    amount_minor: int
    status: str = "unknown"
    decline_code: str | None = None
    refunded_minor: int = 0
    settled_s: float = 0.0


@dataclass(slots=True)
class Recorder:
    """Reports each step to locust and keeps its exact latency. `fire` is locust's `events.request.fire`."""

    fire: Callable[..., None]
    _latencies: list[tuple[str, float, int]] = field(default_factory=list)
    _payments: list[PaymentRecord] = field(default_factory=list)
    _flows: Counter[str] = field(default_factory=Counter)
    _failures: Counter[str] = field(default_factory=Counter)

    def success(self, name: str, seconds: float) -> None:
        """Record a successful step and its latency."""
        self._latencies.append((name, round(time.time(), 3), max(1, round(seconds * 1e6))))
        self._report(name, seconds, None)

    def failure(self, name: str, seconds: float, error: Exception) -> None:
        """Record a failed step."""
        self._failures[f"{name}: {error}"] += 1
        self._report(name, seconds, error)

    def _report(self, name: str, seconds: float, error: Exception | None) -> None:
        self.fire(
            request_type=REQUEST_TYPE,
            name=name,
            response_time=seconds * 1000,
            response_length=0,
            exception=error,
            context={},
        )

    def payment(self, payment: PaymentRecord) -> None:
        """Record a payment at its end."""
        self._payments.append(payment)

    def flow(self, name: str) -> None:
        """Count a completed flow."""
        self._flows[name] += 1

    def drain(self) -> dict[str, Any]:
        """Return and clear the measurements, as plain data that locust can send."""
        data = {
            "latencies": self._latencies,
            "payments": [astuple(payment) for payment in self._payments],
            "flows": dict(self._flows),
            "failures": dict(self._failures),
        }
        self._latencies, self._payments, self._flows, self._failures = [], [], Counter(), Counter()
        return data


@dataclass(slots=True)
class Latencies:
    """The latencies of a step: the times of measurement (Unix seconds), and the microseconds."""

    at_s: "array[float]" = field(default_factory=lambda: array("d"))
    us: "array[int]" = field(default_factory=lambda: array("L"))


@dataclass(slots=True)
class Measurements:
    """The measurements of all processes since the start of the test."""

    latencies: dict[str, Latencies] = field(default_factory=dict)
    payments: list[PaymentRecord] = field(default_factory=list)
    flows: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, data: Mapping[str, Any]) -> None:
        """Add the result of `Recorder.drain`."""
        for name, at_s, us in data["latencies"]:
            latencies = self.latencies.setdefault(name, Latencies())
            if len(latencies.us) < LATENCIES_MAX:
                latencies.at_s.append(at_s)
                latencies.us.append(us)
        self.payments += [PaymentRecord(*values) for values in data["payments"]]
        self.flows.update(data["flows"])
        self.failures.update(data["failures"])
