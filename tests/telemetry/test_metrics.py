"""Exact values of the metrics of a batch."""

import pytest

from pos_server.core.errors import ErrorCode
from pos_server.core.payments.declines import DeclineCode
from pos_server.core.payments.operations import Confirm, Decided, Outcome, Refused, Scan
from pos_server.core.payments.payment import Payment, Status
from pos_server.core.payments.snapshot import Acceptor, MerchantStatus, TerminalStatus
from pos_server.engine.batch_record import BatchRecord
from pos_server.telemetry.metrics import Metrics
from tests.support import EUR, new_id

SCAN = Scan(new_id(), 1, 1, "order", 100, EUR, "code")
CONFIRM = Confirm(SCAN.payment_id, 1, 1, 0, 1, pin_correct=False, pin_generation=1)


def decided(status: Status, code: DeclineCode | None = None, *, operation: Scan | Confirm = SCAN) -> Decided:
    payment = Payment(SCAN.payment_id, b"", 1, 1, 1, "order", 100, EUR, status, code, None, 1, 1)
    till = Acceptor(TerminalStatus.ACTIVE, MerchantStatus.ACTIVE, 1, "Canteen", "Main hall")
    return Decided(operation, payment, till, None, replayed=False)


def record(*outcomes: Outcome) -> BatchRecord:
    """Return a record: accepted at 1.0 s, load at 2.0 s, 10 ms per stage, outcomes published at 3.0 s, 4.0 s, …"""
    count = range(len(outcomes))
    return BatchRecord(
        loading_s=2.0,
        deciding_s=2.01,
        applying_s=2.02,
        publishing_s=2.03,
        outcomes=outcomes,
        accepted_s=[1.0 for _ in count],
        handed_s=[3.0 + place for place in count],
    )


def test_outcomes_are_counted_by_status_and_decline_code_without_repeats() -> None:
    metrics = Metrics()
    repeat = decided(Status.APPROVED)
    repeat = Decided(SCAN, repeat.payment, repeat.acceptor, None, replayed=True)
    metrics.batch(
        record(
            decided(Status.APPROVED),
            decided(Status.APPROVED),
            repeat,
            decided(Status.DECLINED, DeclineCode.CODE_USED),
            decided(Status.PENDING),
            decided(Status.PENDING, operation=CONFIRM),
            Refused(SCAN, ErrorCode.ID_REUSED),
        )
    )
    metrics.count_rejected(1)
    metrics.count_rejected(3)
    families = {family.name: family for family in metrics.registry.collect()}
    payments = {
        (sample.labels["outcome"], sample.labels["decline_code"]): sample.value
        for sample in families["pos_payments"].samples
    }
    assert {labels: value for labels, value in payments.items() if value} == {
        ("approved", ""): 2,
        ("declined", "code_used"): 1,
        ("pending", ""): 1,
    }
    # Every series exists from the start, because a rate needs a first value.
    assert len(payments) == len(Status) - 1 + len(DeclineCode)
    refused = {sample.labels["code"]: sample.value for sample in families["pos_operations_refused"].samples}
    assert {code: value for code, value in refused.items() if value} == {"id_reused": 1, "busy": 3}
    assert set(refused) == set(ErrorCode)


def test_durations_come_from_the_record() -> None:
    metrics = Metrics()
    metrics.batch(record(decided(Status.APPROVED), decided(Status.APPROVED)))

    def total(name: str, **labels: str) -> float:
        return metrics.registry.get_sample_value(f"{name}_sum", labels) or 0

    assert total("pos_authorization_seconds") == pytest.approx(2.0 + 3.0)
    assert total("pos_push_seconds") == pytest.approx(0.97 + 1.97)
    assert total("pos_batch_operations") == 2
    stages = {stage: total("pos_batch_stage_seconds", stage=stage) for stage in ("load", "decide", "apply", "publish")}
    assert stages == pytest.approx({"load": 0.01, "decide": 0.01, "apply": 0.01, "publish": 1.97})


def test_a_batch_without_a_commit_has_no_stages_and_no_push() -> None:
    metrics = Metrics()
    metrics.batch(
        BatchRecord(
            loading_s=2.0,
            database_failures=2,
            conflicts=1,
            outcomes=[Refused(SCAN, ErrorCode.BUSY)],
            accepted_s=[1.0],
            handed_s=[4.0],
        )
    )
    registry = metrics.registry
    assert registry.get_sample_value("pos_push_seconds_count") == 0
    assert registry.get_sample_value("pos_batch_stage_seconds_count", {"stage": "load"}) == 0
    assert registry.get_sample_value("pos_authorization_seconds_sum") == 3.0
    assert registry.get_sample_value("pos_database_failures_total") == 2
    assert registry.get_sample_value("pos_batch_conflicts_total") == 1
