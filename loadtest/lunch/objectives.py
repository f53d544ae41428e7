"""The objectives of a store day. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective, its measurement, and whether it is met."""

    meaning: str
    measured: str
    is_met: bool


# With fewer steps, the p99 is one or two of them, and not the same ones at the tills and in the server.
COMPARED_STEPS_MIN = 1_000


def objectives_of(
    figures: Mapping[str, Any], *, error_share_max: float, p99_ms_max: float, outside_ms_max: float
) -> list[Objective]:
    """Compare a run with its objectives. A missing measurement is not met; a missing audit is left out."""
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
            "every payment is in the books once, with its till's outcome, and every balance is correct",
            f"{books['payments']} payments, {books['wallets']} wallets, {books['problems']} problems",
            books["payments"] > 0 and not books["problems"],
        ),
    ]
    server = (figures["server_histograms"] or {}).get("pos_authorization_seconds")
    if server is not None and figures["engine_steps"]["count"] >= COMPARED_STEPS_MIN:
        objectives.append(_agreement(figures["engine_steps"], server, outside_ms_max))
    if figures["audit"] is not None:
        objectives.append(Objective("pos-server audit", figures["audit"], figures["audit"].startswith("audit ok")))
    return objectives


def _agreement(steps: Mapping[str, Any], server: Mapping[str, Any], outside_ms_max: float) -> Objective:
    """Compare two clocks: a till's wait includes the time that the server counts, and little more.

    The server's percentile is known only by its bucket.
    """
    measurements, is_met = [], True
    for percentile in ("p50", "p99"):
        till_ms, bucket_ms = steps[f"{percentile}_ms"], server[f"{percentile}_bucket_ms"]
        if bucket_ms is None:
            measurements.append(f"{percentile} {till_ms:.1f} ms at the tills, none in the server")
            is_met = False
            continue
        lower_ms, upper_ms = bucket_ms
        upper_text = "more" if upper_ms is None else f"{upper_ms:g}"
        measurements.append(
            f"{percentile} {till_ms:.1f} ms at the tills, {lower_ms:g} to {upper_text} ms in the server"
        )
        is_met = is_met and lower_ms <= till_ms and (upper_ms is None or till_ms <= upper_ms + outside_ms_max)
    return Objective(
        f"the tills wait as long as the server counts, and at most {outside_ms_max:g} ms longer",
        "; ".join(measurements),
        is_met,
    )
