"""Search the logs of a drill for what they must not contain, however many faults it had."""

import json
import re
from collections import Counter

# Messages of a server to its operator, which are no events.
TO_THE_OPERATOR = re.compile(r"pos-server serves http|stopping: |Creating a database in |Waiting for Postgres in ")
# Messages of Postgres that crashes and terminations cause, and conflicts that the server expects and repeats.
EXPECTED_OF_POSTGRES = re.compile(
    r"terminating connection due to administrator command"
    r"|terminating background worker .* due to administrator command"
    r"|the database system is (starting up|shutting down|in recovery mode|not (yet )?accepting connections)"
    r"|terminating connection because of crash of another server process"
    r"|terminating connection due to unexpected postmaster exit"
    r"|postmaster exited during a parallel transaction"
    r"|connection to client lost"
    r"|pre-existing shared memory block"
    r"|ledger conflict: "
)
UNEXPECTED = ("Traceback", "never retrieved", "never awaited")


def findings_of_server(log: str) -> Counter[str]:
    """Return the lines that are no events, and events that are errors or have a traceback, with their numbers."""
    findings: Counter[str] = Counter()
    for line in log.splitlines():
        if TO_THE_OPERATOR.match(line):
            continue
        try:
            event = json.loads(line)
        except ValueError:
            findings[_masked(line)] += 1
            continue
        is_unexpected = any(text in line for text in UNEXPECTED)
        if is_unexpected or event["level"] in ("error", "critical") or "exception" in event:
            cause = event.get("exception", "").strip().rpartition("\n")[2]
            findings[_masked(f"{event['level']} {event.get('logger')}: {event['event']} {cause}")] += 1
    return findings


def findings_of_postgres(log: str) -> Counter[str]:
    """Return the errors that nothing in a drill explains, with their numbers."""
    return Counter(
        _masked(match[0])
        for match in re.finditer(r"(ERROR|FATAL|PANIC|WARNING): .*", log)
        if not EXPECTED_OF_POSTGRES.search(match[0])
    )


def _masked(text: str) -> str:
    """Return the text without ids and numbers, so that equal findings are counted together."""
    return re.sub(r"0x[0-9a-f]+|[0-9a-f]{8}-[0-9a-f-]{27}|\d+", "…", text)[:400]
