"""What a load test must have shown. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Objective:
    """What was to be shown, what was, and whether that is met."""

    meaning: str
    measured: str
    is_met: bool


def objectives_of(figures: Mapping[str, Any], *, error_share_max: float, p99_ms_max: float) -> list[Objective]:
    """The objectives of a run, held against its figures. What was not measured is not met; no audit is no objective."""
    p99_ms = figures["scan_terminal_p99_ms"]
    books = figures["books"]
    objectives = [
        Objective(
            f"at most {error_share_max:.2%} of the steps failed",
            f"{figures['failed_steps']} of {figures['steps']}",
            figures["steps"] > 0 and figures["failed_steps"] <= error_share_max * figures["steps"],
        ),
        Objective(
            f"scan → terminal: p99 at most {p99_ms_max:g} ms",
            "no payments" if p99_ms is None else f"{p99_ms:.1f} ms",
            p99_ms is not None and p99_ms <= p99_ms_max,
        ),
        Objective(
            "every payment is in the books once, with the outcome that its till knows, and every balance is right",
            f"{books['payments']} payments, {books['wallets']} wallets, {books['problems']} problems",
            books["payments"] > 0 and not books["problems"],
        ),
    ]
    if figures["audit"] is not None:
        objectives.append(Objective("pos-server audit", figures["audit"], figures["audit"].startswith("audit ok")))
    return objectives
