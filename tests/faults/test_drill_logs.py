"""The search in the logs of a drill finds what nobody handled, and nothing else."""

import json

from tests.faults.drill_logs import findings_of_postgres, findings_of_server


def test_errors_tracebacks_and_foreign_lines_of_a_server_are_found() -> None:
    lines = [
        "pos-server serves http://127.0.0.1:8080 (data: /data). Stop it with Ctrl-C or SIGTERM.",
        json.dumps({"event": "database_away", "level": "warning", "logger": "engine", "attempt": 1}),
        json.dumps(
            {"event": "batch_failed", "level": "error", "logger": "engine", "exception": "Trace\nValueError: 7"}
        ),
        json.dumps({"event": "retrying", "level": "warning", "logger": "pool", "exception": "Trace\nOSError: 111"}),
        json.dumps({"event": "Task exception was never retrieved", "level": "warning", "logger": "asyncio"}),
        "Exception ignored in: <coroutine object at 0x7f00>",
        "stopping: finishing accepted requests …",
    ]
    assert dict(findings_of_server("\n".join(lines))) == {
        "error engine: batch_failed ValueError: …": 1,
        "warning pool: retrying OSError: …": 1,
        "warning asyncio: Task exception was never retrieved ": 1,
        "Exception ignored in: <coroutine object at …>": 1,
    }


def test_errors_of_postgres_that_no_fault_explains_are_found() -> None:
    lines = [
        "LOG:  server process (PID 12) was terminated by signal 9: Killed",
        "WARNING:  terminating connection because of crash of another server process",
        "FATAL:  the database system is in recovery mode",
        "ERROR:  ledger conflict: wallet",
        "ERROR:  deadlock detected",
        "PANIC:  could not write to file",
    ]
    assert dict(findings_of_postgres("\n".join(lines))) == {
        "ERROR:  deadlock detected": 1,
        "PANIC:  could not write to file": 1,
    }
