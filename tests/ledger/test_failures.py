"""The table of database errors: what each means, in each phase of an operation."""

import logging

import asyncpg
import pytest
from structlog.testing import capture_logs

from pos_server.core.errors import ErrorCode
from pos_server.ledger.durability import NotDurable
from pos_server.ledger.failures import (
    RULES,
    UNLISTED,
    Action,
    Failure,
    NotConnected,
    Phase,
    alarms,
    classify,
    report,
)
from pos_server.telemetry.logs import configure_logging

BUSY, UNKNOWN = ErrorCode.BUSY, ErrorCode.UNKNOWN_OUTCOME
AGAIN, LATER, GIVE_UP = Action.DECIDE_AGAIN, Action.TRY_LATER, Action.GIVE_UP


def answered(sqlstate: str, severity: str = "ERROR", constraint: str | None = None) -> Exception:
    """Return the exception that asyncpg raises for an ErrorResponse."""
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": "a message with a secret"}
    error: Exception = asyncpg.PostgresError.new(fields | ({} if constraint is None else {"n": constraint}))
    return error


def caused_by(cause: Exception) -> NotConnected:
    error = NotConnected("no")
    error.__cause__ = cause
    return error


# SQLSTATE, reaction, answer if it ended the write, connection is kept, alarm.
ANSWERED = [
    ("08000", LATER, UNKNOWN, False, False),
    ("08003", LATER, UNKNOWN, False, False),
    ("08006", LATER, UNKNOWN, False, False),
    ("08P01", LATER, UNKNOWN, False, False),
    ("0A000", LATER, BUSY, False, True),
    ("21000", GIVE_UP, BUSY, True, True),
    ("22003", GIVE_UP, BUSY, True, True),
    ("22P02", GIVE_UP, BUSY, True, True),
    ("23502", GIVE_UP, BUSY, True, True),
    ("23514", GIVE_UP, BUSY, True, True),
    ("25001", LATER, BUSY, False, True),
    ("25006", LATER, BUSY, False, False),
    ("25P02", LATER, BUSY, False, True),
    ("26000", LATER, BUSY, False, True),
    ("28000", LATER, BUSY, False, True),
    ("28P01", LATER, BUSY, False, True),
    ("3D000", LATER, BUSY, False, True),
    ("3F000", LATER, BUSY, False, True),
    ("40000", AGAIN, BUSY, True, False),
    ("40001", AGAIN, BUSY, True, False),
    ("40002", AGAIN, BUSY, True, False),
    ("40003", LATER, UNKNOWN, False, True),
    ("40P01", AGAIN, BUSY, True, False),
    ("42501", GIVE_UP, BUSY, False, True),
    ("42703", GIVE_UP, BUSY, False, True),
    ("42P01", GIVE_UP, BUSY, False, True),
    ("42P05", GIVE_UP, BUSY, False, True),
    ("53000", LATER, BUSY, True, False),
    ("53100", LATER, BUSY, True, True),
    ("53200", LATER, BUSY, True, False),
    ("53300", LATER, BUSY, True, False),
    ("54001", GIVE_UP, BUSY, True, True),
    ("55000", LATER, BUSY, False, True),
    ("55006", LATER, BUSY, True, False),
    ("55P03", LATER, BUSY, True, False),
    ("57000", LATER, UNKNOWN, False, False),
    ("57014", LATER, BUSY, True, False),
    ("57P01", LATER, UNKNOWN, False, False),
    ("57P02", LATER, UNKNOWN, False, False),
    ("57P03", LATER, UNKNOWN, False, False),
    ("57P05", LATER, UNKNOWN, False, False),
    ("58030", LATER, BUSY, False, True),
    ("58P01", LATER, BUSY, False, True),
    ("F0000", LATER, BUSY, False, True),
    ("P0001", GIVE_UP, BUSY, True, True),
    ("XX000", LATER, BUSY, False, True),
    ("XX001", LATER, BUSY, False, True),
    # Not in the table.
    ("HV000", LATER, UNKNOWN, False, True),
    ("ZZ999", LATER, UNKNOWN, False, True),
]
# The driver's exceptions, and one of a bug.
DRIVER = [
    (asyncpg.TargetServerAttributeNotMatched("none"), LATER, BUSY, False, False),
    (asyncpg.InternalClientError("cannot switch to state"), LATER, UNKNOWN, False, False),
    (asyncpg.InterfaceError("connection is closed"), LATER, UNKNOWN, False, False),
    (asyncpg.exceptions._base.DataError("invalid input"), GIVE_UP, BUSY, False, True),
    (asyncpg.ClientConfigurationError("invalid DSN"), LATER, BUSY, False, True),
    (TimeoutError(), LATER, UNKNOWN, False, False),
    (ConnectionResetError(), LATER, UNKNOWN, False, False),
    (OSError("no route to host"), LATER, UNKNOWN, False, False),
    (NotDurable("no standby"), LATER, UNKNOWN, False, False),
    (caused_by(ConnectionRefusedError()), LATER, BUSY, False, False),
    (caused_by(answered("57P03", "FATAL")), LATER, BUSY, False, False),
    (caused_by(answered("28P01", "FATAL")), LATER, BUSY, False, True),
    (RuntimeError("the handler is closed"), LATER, UNKNOWN, False, True),
]


@pytest.mark.parametrize(("sqlstate", "action", "answer", "keeps", "alarming"), ANSWERED)
def test_an_answer_of_postgres(sqlstate: str, action: Action, answer: ErrorCode, keeps: bool, alarming: bool) -> None:
    failure = classify(answered(sqlstate), Phase.WRITE)
    assert failure == Failure(sqlstate, action, answer is UNKNOWN, keeps, alarming)
    assert failure.answer is answer


@pytest.mark.parametrize(
    ("error", "action", "answer", "keeps", "alarming"), DRIVER, ids=[type(row[0]).__name__ for row in DRIVER]
)
def test_an_exception_of_the_driver(
    error: Exception, action: Action, answer: ErrorCode, keeps: bool, alarming: bool
) -> None:
    failure = classify(error, Phase.WRITE)
    assert failure[1:] == (action, answer is UNKNOWN, keeps, alarming)


@pytest.mark.parametrize("phase", [Phase.CONNECT, Phase.READ])
def test_only_a_write_has_an_unknown_outcome(phase: Phase) -> None:
    errors = [answered(row[0]) for row in ANSWERED] + [row[0] for row in DRIVER]
    assert {classify(error, phase).answer for error in errors} == {BUSY}


@pytest.mark.parametrize("severity", ["FATAL", "PANIC"])
@pytest.mark.parametrize("sqlstate", ["25P04", "53300", "57014", "XX000"])
def test_a_fatal_error_ends_the_session_and_does_not_answer_the_write(severity: str, sqlstate: str) -> None:
    failure = classify(answered(sqlstate, severity), Phase.WRITE)
    assert (failure.answer, failure.keeps_connection) == (UNKNOWN, False)


@pytest.mark.parametrize(
    ("constraint", "action", "alarming"),
    [
        ("payment_pkey", AGAIN, False),
        ("payment_open_reference", AGAIN, False),
        ("refund_pkey", AGAIN, False),
        ("transfer_source", AGAIN, False),
        # The id comes from a sequence, which was set back.
        ("transfer_pkey", GIVE_UP, True),
        (None, GIVE_UP, True),
    ],
)
def test_only_contested_keys_are_decided_again(constraint: str | None, action: Action, alarming: bool) -> None:
    failure = classify(answered("23505", constraint=constraint), Phase.WRITE)
    assert (failure.action, failure.answer, failure.is_alarming) == (action, BUSY, alarming)


def test_every_rule_has_a_case() -> None:
    cases = {row[0] for row in ANSWERED} | {"23505"}
    for rule in (rule for rule in RULES if isinstance(rule.code, str)):
        assert any(case == rule.code or case[:2] == rule.code for case in cases), rule
    assert classify(answered("ZZ999"), Phase.WRITE)[1:] == UNLISTED[2:]


def test_a_report_counts_alarms_and_contains_no_message() -> None:
    before = alarms()
    with capture_logs() as logs:
        report(answered("23514", constraint="account_balance"), Phase.WRITE, during="writing")
        report(answered("57P01", "FATAL"), Phase.READ, during="reading")
    assert alarms() == before + 1
    assert logs == [
        {
            "event": "database_error",
            "log_level": "error",
            "during": "writing",
            "cause": "CheckViolationError",
            "code": "23514",
            "constraint": "account_balance",
        },
        {
            "event": "database_away",
            "log_level": "warning",
            "during": "reading",
            "cause": "AdminShutdownError",
            "code": "57P01",
        },
    ]


def test_the_pool_logs_a_lost_connection_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logging()
        try:
            raise caused_by(ConnectionRefusedError("no"))
        except NotConnected:
            logging.getLogger("asyncpg.pool").warning("Failed to restore; retrying", exc_info=True)
    finally:
        root.handlers[:], root.level = handlers, level
    (line,) = capsys.readouterr().err.splitlines()
    assert "Failed to restore; retrying (NotConnected)" in line
    assert "Traceback" not in line
