"""What one process of locust measures, and what all of them together have measured."""

import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

REQUEST_TYPE = "WS"
# A locust that runs for days in its web UI keeps this many latencies of a step; later ones are in locust's own figures.
LATENCIES_MAX = 2_000_000


@dataclass(slots=True)
class PaymentRecord:
    """A payment as its till knows it: `unknown` until it has heard, which it did at `settled_s` (Unix seconds)."""

    payment_id: str
    wallet_number: int
    amount_minor: int
    status: str = "unknown"
    decline_code: str | None = None
    refunded_minor: int = 0
    settled_s: float = 0.0


@dataclass(slots=True)
class Recorder:
    """Tells locust of each step, and keeps the true latency. `fire` is locust's `events.request.fire`."""

    fire: Callable[..., None]
    _latencies: list[tuple[str, float, int]] = field(default_factory=list)
    _payments: list[PaymentRecord] = field(default_factory=list)
    _flows: Counter[str] = field(default_factory=Counter)
    _failures: Counter[str] = field(default_factory=Counter)

    def done(self, name: str, seconds: float) -> None:
        """A step went as it must, in this time."""
        self._latencies.append((name, round(time.time(), 3), max(1, round(seconds * 1e6))))
        self._tell(name, seconds, None)

    def failed(self, name: str, seconds: float, problem: Exception) -> None:
        """A step failed."""
        self._failures[f"{name}: {problem}"] += 1
        self._tell(name, seconds, problem)

    def _tell(self, name: str, seconds: float, problem: Exception | None) -> None:
        self.fire(
            request_type=REQUEST_TYPE,
            name=name,
            response_time=seconds * 1000,
            response_length=0,
            exception=problem,
            context={},
        )

    def payment(self, payment: PaymentRecord) -> None:
        """A payment is over."""
        self._payments.append(payment)

    def flow(self, name: str) -> None:
        """A customer has left as this flow wants it."""
        self._flows[name] += 1

    def drain(self) -> dict[str, Any]:
        """All since the last time, as plain data that locust can send."""
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
    """The latencies of a step: when each was measured (Unix seconds), and microseconds."""

    at_s: "array[float]" = field(default_factory=lambda: array("d"))
    us: "array[int]" = field(default_factory=lambda: array("L"))


@dataclass(slots=True)
class Collected:
    """What all processes have measured since the test began."""

    latencies: dict[str, Latencies] = field(default_factory=dict)
    payments: list[PaymentRecord] = field(default_factory=list)
    flows: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, data: Mapping[str, Any]) -> None:
        """Take what a `Recorder.drain` gave."""
        for name, at_s, us in data["latencies"]:
            kept = self.latencies.setdefault(name, Latencies())
            if len(kept.us) < LATENCIES_MAX:
                kept.at_s.append(at_s)
                kept.us.append(us)
        self.payments += [PaymentRecord(*values) for values in data["payments"]]
        self.flows.update(data["flows"])
        self.failures.update(data["failures"])
