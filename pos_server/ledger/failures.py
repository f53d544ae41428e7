"""Database errors: what each means for the request, the connection and the operator.

RULES is the whole table. A rule is found by the SQLSTATE, then by its class (the first two characters), then by the
type of the driver's exception. Source of the codes: the PostgreSQL manual, appendix A. docs/operations.md shows the
table.

Two rules are not in the table:

- A fatal error ends the session instead of answering the statement, so the outcome of a write is unknown.
- An error that no rule covers gets UNLISTED: the connection is dropped, and the outcome of a write is unknown.
"""

from enum import StrEnum
from typing import NamedTuple

import asyncpg
import structlog

from ..core.errors import ErrorCode

log = structlog.get_logger(__name__)


class NotConnected(ConnectionError):
    """The pool could not open a connection, so nothing was sent. The cause is the driver's error."""


class WrongSession(NotConnected):
    """A new connection was closed because of one of its settings (session_checks.py). The text has no secrets."""

    def __init__(self, setting: str, value: str, needed: str, consequence: str) -> None:
        super().__init__(setting, value, needed, consequence)
        self.setting = setting
        self.value = value
        self.needed = needed
        self.consequence = consequence

    def __str__(self) -> str:
        return (
            f"{self.setting} is {self.value} in sessions of the database and must be {self.needed}, or "
            f"{self.consequence}. Correct it in postgresql.conf, in `alter role`, in `alter database`, or in the pooler"
        )


# The driver has two exceptions with this name. The other one is an answer of Postgres, of class 22.
_BadValue = asyncpg.exceptions._base.DataError

# Every error that a database operation can raise, apart from bugs.
DATABASE_ERRORS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Phase(StrEnum):
    """The operation that ended with an error. Only a write can have been committed."""

    CONNECT = "connecting"
    READ = "reading"
    WRITE = "writing"


class Action(StrEnum):
    """The reaction to an error. The value is its text in the documents."""

    DECIDE_AGAIN = "decide again on fresh rows"
    TRY_LATER = "try again later"
    GIVE_UP = "give up: the same statement would fail again"


class Rule(NamedTuple):
    """The meaning of an error.

    - `code`: SQLSTATE, class of SQLSTATEs, or type of a driver exception.
    - `may_have_committed`: whether a write that ended with it may have taken effect.
    - `keeps_connection`: whether the connection can be used further.
    - `is_alarming`: whether a person has to act, so that it is logged as an error and counted.
    """

    code: str | type[Exception]
    meaning: str
    action: Action
    may_have_committed: bool
    keeps_connection: bool
    is_alarming: bool


_AGAIN, _LATER, _GIVE_UP = Action.DECIDE_AGAIN, Action.TRY_LATER, Action.GIVE_UP
_NOTHING, _UNKNOWN = False, True
_DROP, _KEEP = False, True
_QUIET, _ALARM = False, True

RULES = (
    Rule("08", "the connection was lost", _LATER, _UNKNOWN, _DROP, _QUIET),
    Rule("0A", "a prepared statement does not fit the schema", _LATER, _NOTHING, _DROP, _ALARM),
    Rule("21", "a statement is wrong", _GIVE_UP, _NOTHING, _KEEP, _ALARM),
    Rule("22", "a value is invalid", _GIVE_UP, _NOTHING, _KEEP, _ALARM),
    Rule("23", "a constraint is violated", _GIVE_UP, _NOTHING, _KEEP, _ALARM),
    Rule("23505", "another server stored the same id first", _AGAIN, _NOTHING, _KEEP, _QUIET),
    Rule("25", "the session is in the wrong state", _LATER, _NOTHING, _DROP, _ALARM),
    Rule("25006", "the database is read-only: a standby", _LATER, _NOTHING, _DROP, _QUIET),
    Rule("26", "a prepared statement is missing: a pooler", _LATER, _NOTHING, _DROP, _ALARM),
    Rule("28", "the login is rejected", _LATER, _NOTHING, _DROP, _ALARM),
    Rule("3D", "the database does not exist", _LATER, _NOTHING, _DROP, _ALARM),
    Rule("3F", "the schema does not exist", _LATER, _NOTHING, _DROP, _ALARM),
    Rule("40", "another transaction was first, or a deadlock", _AGAIN, _NOTHING, _KEEP, _QUIET),
    Rule("40003", "the outcome of the statement is not known", _LATER, _UNKNOWN, _DROP, _ALARM),
    Rule("42", "a table or a privilege is missing", _GIVE_UP, _NOTHING, _DROP, _ALARM),
    Rule("53", "Postgres lacks memory or connections", _LATER, _NOTHING, _KEEP, _QUIET),
    Rule("53100", "the disk of Postgres is full", _LATER, _NOTHING, _KEEP, _ALARM),
    Rule("54", "a statement exceeds a limit of Postgres", _GIVE_UP, _NOTHING, _KEEP, _ALARM),
    Rule("55", "an object is in the wrong state", _LATER, _NOTHING, _DROP, _ALARM),
    Rule("55006", "an object is in use", _LATER, _NOTHING, _KEEP, _QUIET),
    Rule("55P03", "a lock was not available in time", _LATER, _NOTHING, _KEEP, _QUIET),
    Rule("57", "Postgres stops, starts, or ended the session", _LATER, _UNKNOWN, _DROP, _QUIET),
    Rule("57014", "the statement was canceled or took too long", _LATER, _NOTHING, _KEEP, _QUIET),
    Rule("58", "the disk or the system of Postgres failed", _LATER, _NOTHING, _DROP, _ALARM),
    Rule("F0", "the configuration of Postgres is damaged", _LATER, _NOTHING, _DROP, _ALARM),
    Rule("P0", "a function of the schema refused", _GIVE_UP, _NOTHING, _KEEP, _ALARM),
    Rule("XX", "a fault in Postgres, or damaged data", _LATER, _NOTHING, _DROP, _ALARM),
    Rule(WrongSession, "a setting of a new session is wrong: a pooler", _LATER, _NOTHING, _DROP, _ALARM),
    Rule(NotConnected, "the pool could not connect", _LATER, _NOTHING, _DROP, _QUIET),
    Rule(asyncpg.TargetServerAttributeNotMatched, "no host accepts writes", _LATER, _NOTHING, _DROP, _QUIET),
    Rule(asyncpg.InternalClientError, "the connection ended at a wrong moment", _LATER, _UNKNOWN, _DROP, _QUIET),
    Rule(_BadValue, "the driver cannot send a value", _GIVE_UP, _NOTHING, _DROP, _ALARM),
    Rule(asyncpg.ClientConfigurationError, "the DSN is invalid", _LATER, _NOTHING, _DROP, _ALARM),
    Rule(asyncpg.InterfaceError, "the connection is closed or occupied", _LATER, _UNKNOWN, _DROP, _QUIET),
    Rule(TimeoutError, "no answer in time", _LATER, _UNKNOWN, _DROP, _QUIET),
    Rule(OSError, "the connection was lost", _LATER, _UNKNOWN, _DROP, _QUIET),
)
UNLISTED = Rule("any other", "not in this table", _LATER, _UNKNOWN, _DROP, _ALARM)
_BY_SQLSTATE = {rule.code: rule for rule in RULES if isinstance(rule.code, str)}
_BY_TYPE = [(rule.code, rule) for rule in RULES if not isinstance(rule.code, str)]
# Keys that two requests can store at the same time. Any other duplicate is damage: a sequence was set back.
_CONTESTED_KEYS = frozenset(
    (
        *("payment_pkey", "payment_open_reference", "refund_pkey", "transfer_source"),
        *("shift_pkey", "shift_open", "shift_terminal_number_number_key"),
        *("idempotency_key_pkey", "archived_name_pkey", "archived_reference", "archived_refund_id"),
    )
)
_ENDS_SESSION = {"FATAL", "PANIC"}


class Failure(NamedTuple):
    """The meaning of one error in the phase in which it occurred. `code` is the SQLSTATE or the exception's name."""

    code: str
    action: Action
    may_have_committed: bool
    keeps_connection: bool
    is_alarming: bool

    @property
    def answer(self) -> ErrorCode:
        """The answer to a request that ends with this failure."""
        return ErrorCode.UNKNOWN_OUTCOME if self.may_have_committed else ErrorCode.BUSY


def classify(error: Exception, phase: Phase) -> Failure:
    """Return the meaning of an error. Any exception is accepted; a bug gets the rule UNLISTED."""
    rule, code, ends_session = UNLISTED, type(error).__name__, False
    if isinstance(error, asyncpg.PostgresError):
        code = error.sqlstate or code
        rule = _BY_SQLSTATE.get(code) or _BY_SQLSTATE.get(code[:2]) or UNLISTED
        if rule.code == "23505" and error.constraint_name not in _CONTESTED_KEYS:
            rule = _BY_SQLSTATE["23"]
        ends_session = (error.severity_en or error.severity) in _ENDS_SESSION
    else:
        rule = next((rule for kind, rule in _BY_TYPE if isinstance(error, kind)), UNLISTED)
    is_alarming = rule.is_alarming
    if isinstance(error, NotConnected) and isinstance(error.__cause__, Exception):
        cause = classify(error.__cause__, Phase.CONNECT)
        code, is_alarming = cause.code, cause.is_alarming
    return Failure(
        code,
        rule.action,
        phase is Phase.WRITE and (rule.may_have_committed or ends_session),
        rule.keeps_connection and not ends_session,
        is_alarming,
    )


class _Alarms:
    """The number of alarming errors of this process, for a metric."""

    count = 0


def alarms() -> int:
    """Return the number of alarming database errors since the process started."""
    return _Alarms.count


def report(error: Exception, phase: Phase, *, during: str, **about: object) -> Failure:
    """Classify an error, log it in one line, and count it if it is alarming.

    Neither a statement nor a message of Postgres is logged, because they can contain values.
    """
    failure = classify(error, phase)
    fields = {"during": during, "cause": type(error).__name__, "code": failure.code, **about}
    constraint = getattr(error, "constraint_name", None)
    if constraint is not None:
        fields["constraint"] = constraint
    if isinstance(error, WrongSession):
        fields["reason"] = str(error)
    if failure.is_alarming:
        _Alarms.count += 1
        log.error("database_error", **fields)
    else:
        log.warning("database_away", **fields)
    return failure
