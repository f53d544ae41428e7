"""The output of the demo: two lines per payment, one for each side, then a summary."""

import math
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.money import format_amount
from ..ledger.audit import AuditReport
from ..programs import program
from .shop import CURRENCY, Customer, Terminal


@dataclass(frozen=True, slots=True)
class Side:
    """The text that one side received, and its latency from the scan."""

    text: str
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """A payment with its expected and actual outcome, and the notices of both sides."""

    terminal: Terminal
    customer: Customer
    amount_minor: int
    expected: str
    seen: str
    terminal_side: Side
    wallet_side: Side | None
    wallet_expected: bool

    @property
    def as_expected(self) -> bool:
        return self.seen == self.expected and (self.wallet_side is not None) == self.wallet_expected

    @property
    def latency_ms(self) -> float:
        """Time from the scan until both sides have their notice."""
        return max(self.terminal_side.latency_ms, self.wallet_side.latency_ms if self.wallet_side else 0.0)


@dataclass(slots=True)
class Report:
    """Collects outcomes and prints them; with `quiet` on stderr, so that standard output has only JSON."""

    quiet: bool
    outcomes: list[Outcome] = field(default_factory=list)
    steps: dict[str, bool] = field(default_factory=dict)

    @property
    def as_expected(self) -> bool:
        return all(outcome.as_expected for outcome in self.outcomes) and all(self.steps.values())

    def say(self, text: str) -> None:
        """Print a text for a person."""
        print(text, file=sys.stderr if self.quiet else sys.stdout, flush=True)

    def opening(self, url: str, terminals: int, wallets: int) -> None:
        self.say(f"Serving {url}. {terminals} terminals and {wallets} wallets connect; a short store day begins.\n")
        self.say("   #  side                        outcome              amount   scan → notice")

    def payment(self, outcome: Outcome) -> None:
        """Print two lines: the texts that the till and the customer received."""
        self.outcomes.append(outcome)
        amount = format_amount(outcome.amount_minor, CURRENCY)
        till = f"till {outcome.terminal.number} {outcome.terminal.store}"
        self.say(
            f"{len(self.outcomes):4}  {till:<26}  {outcome.seen:<18} {amount:>10}  "
            f"{outcome.terminal_side.latency_ms:6.1f} ms  {outcome.terminal_side.text}"
        )
        wallet = f"wallet of {outcome.customer.name}"
        if outcome.wallet_side is not None:
            wallet_text = f"{outcome.wallet_side.latency_ms:6.1f} ms  {outcome.wallet_side.text}"
        elif outcome.wallet_expected:
            wallet_text = "  MISSING"
        else:
            wallet_text = "       -     receives no notice of a forged code"
        self.say(f"      {wallet:<26}  {'':<18} {'':>10}  {wallet_text}")
        if not outcome.as_expected:
            self.say(f"      UNEXPECTED: the expected outcome is {outcome.expected}")

    def step(self, till_number: int, customer: str, name: str, as_expected: bool, at_till: str, on_phone: str) -> None:
        """Print a step after the rush with the texts of till and wallet; a text is empty if a side received none."""
        self.steps[name] = as_expected
        if at_till:
            self.say(f"      {f'till {till_number}':<26}  {name:<18}  {at_till}")
        self.say(f"      {f'wallet of {customer}':<26}  {'' if at_till else name:<18}  {on_phone}")
        if not as_expected:
            self.say(f"      UNEXPECTED: {name}")

    def summary(self, audit: AuditReport) -> None:
        figures = self.as_json(audit)
        declined = ", ".join(f"{count} {code}" for code, count in figures["declined"].items())
        self.say(
            f"\n{figures['payments']} payments: {figures['approved']} approved, {declined}.\n"
            f"Notices: {figures['terminal_notices']} to terminals, {figures['wallet_notices']} to wallets. "
            f"Scan → both notices: p50 {figures['p50_ms']} ms, p99 {figures['p99_ms']} ms.\n"
            f"After the rush: {', '.join(self.steps)}.\n"
            f"Audit {figures['audit']}: {audit.transfers} transfers, {audit.wallets} wallets, "
            f"{audit.payments} payments in the ledger."
        )

    def as_json(self, audit: AuditReport) -> dict[str, Any]:
        """Return the machine-readable summary. Latencies in ms are from the scan until both sides have their notice."""
        latencies_ms = sorted(outcome.latency_ms for outcome in self.outcomes)
        seen = Counter(outcome.seen for outcome in self.outcomes)
        approved = seen.pop("approved", 0)
        return {
            "payments": len(self.outcomes),
            "approved": approved,
            "declined": dict(sorted(seen.items())),
            "steps": self.steps,
            "terminal_notices": len(self.outcomes),
            "wallet_notices": sum(outcome.wallet_side is not None for outcome in self.outcomes),
            "p50_ms": round(percentile(latencies_ms, 50), 2),
            "p99_ms": round(percentile(latencies_ms, 99), 2),
            "audit": "ok" if audit.ok else "failed",
        }


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of values in ascending order."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def by_hand_text(url: str, terminal_code: str, wallet_code: str, data_dir: Path | None) -> str:
    """Return the instructions for two more shells."""
    wallet, terminal = program("pos-wallet"), program("pos-terminal")
    ledger = "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"
    return f"""
The server keeps running at {url}. Try it by hand in two more shells:

  {wallet} activate --server {url} {wallet_code}
  {wallet} show

  {terminal} activate --server {url} {terminal_code}
  {terminal} till

At the till, type an amount, then the digits under the wallet's QR code.
Audit the ledger at any time: {program("pos-server")} audit{ledger}
Stop with Ctrl-C."""
