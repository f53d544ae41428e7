"""Write the generated tables of docs/: `make generate`.

A table stands between `<!-- generated: NAME -->` and `<!-- end -->`. Its text comes from the message classes, the
descriptions of the codes, the endpoints of the REST API, and the defaults of the settings.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

from pydantic import BaseModel

from pos_server.core.accounting.shifts import TotalKind
from pos_server.core.codes import DescribedCode
from pos_server.core.credentials.activation import Activation, ActivationRequest
from pos_server.core.credentials.api_keys import Role
from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.errors import CloseCode, ErrorCode
from pos_server.core.money import MAX_AMOUNT_MINOR
from pos_server.core.payments.declines import ADVICE, DeclineCode, NextStep
from pos_server.core.payments.rules import Limits
from pos_server.core.protocol.asyncapi import message_schema
from pos_server.core.protocol.client_messages import (
    OPERATOR_CHARS_MAX,
    PAGE_MAX,
    PIN_DIGITS_MAX,
    REQUESTS,
    Authenticate,
)
from pos_server.core.protocol.fields import MESSAGE_ID_CHARS_MAX, REFERENCE_CHARS_MAX
from pos_server.core.protocol.server_messages import MESSAGES_TO
from pos_server.core.rest.catalogue import ENDPOINTS
from pos_server.core.rest.problems import ProblemCode, problem_text
from pos_server.core.texts import DEFAULT_LANGUAGE, decline_text
from pos_server.ledger.failures import RULES, UNLISTED
from pos_server.settings import Settings

_NAMES = ("protocol.md", "payments.md", "api.md", "settings.md", "operations.md")
PAGES = tuple(Path(__file__).parents[1] / "docs" / name for name in _NAMES)
DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}
_BLOCK = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_COLUMNS = 100
_ENUM_VALUES_MAX = 4
_POWERS = {2**53 - 1: "2^53 \u2212 1", 2**31 - 1: "2^31 \u2212 1"}

# Limit, setting, unit, and consequence beyond the limit.
_LIMITS = (
    ("Length of a message to the server", "frame_bytes_max", "bytes of UTF-8", "close code 1009"),
    ("Interval of pings", "heartbeat_s", "s", ""),
    ("Time for a pong", "heartbeat_timeout_s", "s", "close code 4004"),
    ("Time without acknowledged TCP data (on Linux)", "tcp_user_timeout_s", "s", "the connection is dropped"),
    ("Time to authenticate", "authentication_timeout_s", "s", "close code 4002"),
    ("Unsent messages to a device", "outbox_messages_max", "", "close code 4001"),
    ("Length of the unsent messages to a device", "outbox_bytes_max", "bytes", "close code 4001"),
    ("Messages of a connection at once", "messages_burst", "", "`too_many_messages`"),
    ("Messages of a connection per second, on average", "messages_per_s", "", "`too_many_messages`"),
    ("Queries of a connection at once", "queries_burst", "", "`too_many_queries`"),
    ("Queries of a connection per second, on average", "queries_per_s", "", "`too_many_queries`"),
    (
        "Open queries, confirmations and `pin.set` of a connection",
        "connection_requests_max",
        "",
        "`busy`",
    ),
    ("Bad messages of a connection at once", "bad_messages_burst", "", "close code 4107"),
    ("Bad messages of a connection per second, on average", "bad_messages_per_s", "", "close code 4107"),
    ("Connections of the server", "connections_max", "", "HTTP 503"),
    ("Connections of an address", "address_connections_max", "", "HTTP 429"),
    ("Interval of checks for revoked keys", "revocation_check_s", "s", ""),
    ("Overlap of a replay before `since_ms`", "resume_overlap_s", "s", ""),
    ("Payments of a replay, or of a page of it", "resume_payments_max", "", "`resume` asks for pages"),
    ("Time to finish and to close connections when stopping", "drain_timeout_s", "s", "close code 1012"),
    ("`reconnect_within_s` of `draining`", "drain_reconnect_within_s", "s", ""),
    ("Requests waiting in the server", "queue_operations_max", "", "`busy`"),
    ("Open requests of a terminal or a wallet", "device_operations_max", "", "`busy`"),
    ("Time of a request in the queue", "operation_deadline_s", "s", "`busy`"),
    ("Time of one attempt to decide requests", "batch_timeout_s", "s", "the next attempt"),
    ("Attempts to decide requests", "batch_attempts_max", "", "`busy` or `unknown_outcome`"),
    ("Amount of a payment", "payment_minor_max", "minor units", "`amount_over_limit`"),
    ("Payments of a wallet in a day", "day_minor_max", "minor units", "`daily_limit`"),
    ("Amount of a top-up", "top_up_minor_max", "minor units", "`amount_over_limit`"),
    ("Balance of a wallet after a top-up", "balance_minor_max", "minor units", "`balance_limit`"),
    ("Amount of a payment without a PIN", "pin_free_minor_max", "minor units", "the PIN is required"),
    ("Payments of a wallet without a PIN in a day", "pin_free_day_count_max", "", "the PIN is required"),
    ("Sum of them in a day", "pin_free_day_minor_max", "minor units", "the PIN is required"),
    ("Time of a payment to wait for its PIN", "confirmation_s", "s", "`expired`"),
    ("Interval of checks for expired payments", "expiry_check_s", "s", ""),
    ("Wrong PINs for a payment", "pin_payment_failures_max", "", "the last is `pin_wrong`"),
    ("Wrong PINs of a wallet in a row", "pin_failures_max", "", "the last locks the PIN"),
    ("Time of a locked PIN", "pin_lock_s", "s", ""),
    ("PINs waiting to be checked", "pin_checks_max", "", "`busy`"),
    ("Age of an approved payment that is canceled", "cancel_window_s", "s", "`cancel_too_late`"),
    ("Age of a payment that is refunded", "refund_window_days", "days", "`refund_too_late`"),
    ("Refunds of a payment", "refunds_max", "", "`too_many_refunds`"),
    ("Forged codes of a terminal in a window", "bad_codes_max", "", "`too_many_bad_codes`"),
    ("Length of that window", "bad_codes_window_s", "s", ""),
    ("Age of a code that is called expired, in steps", "code_expired_steps", "", "`code_invalid`"),
    ("Body of an activation request", "activation_body_bytes_max", "bytes", "HTTP 413"),
    ("Wrong activation codes of an address in a window", "activation_failures_max", "", "HTTP 429"),
    ("Length of that window", "activation_failures_window_s", "s", ""),
)
_CONSTANTS = (
    ("`message_id`", MESSAGE_ID_CHARS_MAX, "characters"),
    ("`reference`", REFERENCE_CHARS_MAX, "characters"),
    ("`operator`", OPERATOR_CHARS_MAX, "characters"),
    ("`amount_minor`", MAX_AMOUNT_MINOR, ""),
    ("`limit` of `payments.recent` and `history`", PAGE_MAX, ""),
    ("A PIN", PIN_DIGITS_MAX, "digits"),
)
# Errors that only devices receive, over their WebSockets.
_OF_DEVICES = {
    ErrorCode.BAD_FIELD,
    ErrorCode.UNKNOWN_TYPE,
    ErrorCode.ID_REUSED,
    ErrorCode.TOO_MANY_QUERIES,
    ErrorCode.TOO_MANY_MESSAGES,
    ErrorCode.PIN_NOT_SET,
    ErrorCode.PIN_TOO_WEAK,
    ErrorCode.PIN_WRONG,
    ErrorCode.PIN_LOCKED,
    ErrorCode.SHIFT_ALREADY_OPEN,
}
_RETRYABLE_PROBLEMS = {ProblemCode.IN_PROGRESS, ProblemCode.TOO_MANY_REQUESTS, ProblemCode.TOO_MANY_ATTEMPTS}


def current_pages() -> Iterator[tuple[Path, str]]:
    """Yield each page with its tables up to date. Raises LookupError if a table has no place, or a place no table."""
    made = tables()
    unplaced = set(made)
    for path in PAGES:
        text = path.read_text("utf-8")
        unplaced.difference_update(name for _, name, _ in _BLOCK.findall(text))
        yield path, _BLOCK.sub(lambda block: f"{block[1]}\n{made[block[2]]}\n\n{block[3]}", text)
    if unplaced:
        raise LookupError(f"no page has a place for {sorted(unplaced)}")


def tables() -> dict[str, str]:
    """Return the text of every generated block, by name."""
    named = {
        "requests": _requests(),
        "server messages": _server_messages(),
        "errors": _errors(),
        "close codes": _close_codes(),
        "declines": _declines(),
        "decline texts": _decline_texts(),
        "next steps": _table(("Next step", "Action of the cashier"), _descriptions(NextStep)),
        "shift totals": _table(("Kind", "Contents"), _descriptions(TotalKind)),
        "limits": _limits(_LIMITS) + _constants(),
        "settings": _settings(),
        "REST errors": _rest_errors(),
        "decline reasons": _table(("Reason", "Meaning"), _descriptions(DeclineCode)),
        "payment limits": _limits(limit for limit in _LIMITS if limit[1] in Limits.__dataclass_fields__),
        "merchant endpoints": _endpoints(Role.MERCHANT),
        "issuer endpoints": _endpoints(Role.ISSUER),
        "database errors": _database_errors(),
    }
    messages = {message.__name__: _message(message) for kind in DeviceKind for message in _messages(kind)}
    bodies: tuple[type[BaseModel], ...] = (ActivationRequest, Activation)
    return named | messages | {body.__name__: _fields(body.model_json_schema()) for body in bodies}


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    lines.insert(1, "|---" * len(header) + "|")
    return "\n".join(lines).replace("|  |", "| |")


def _descriptions(codes: Iterable[DescribedCode]) -> Iterator[tuple[str, str]]:
    return ((f"`{code}`", code.description) for code in codes)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _choice(names: Iterable[str]) -> str:
    *others, name = [f"`{name}`" for name in dict.fromkeys(names)]
    return f"{', '.join(others)} or {name}" if others else name


def _messages(kind: DeviceKind) -> tuple[type[Any], ...]:
    return (Authenticate, *REQUESTS[kind], *MESSAGES_TO[kind])


def _wire_name(message: type[Any]) -> str:
    return str(message_schema(message)["properties"]["type"]["const"])


def _database_errors() -> str:
    rows = (
        (
            f"`{rule.code}`" if isinstance(rule.code, str) and rule is not UNLISTED else _name(rule.code),
            rule.meaning,
            str(rule.action),
            "`unknown_outcome`" if rule.may_have_committed else "`busy`",
            "kept" if rule.keeps_connection else "dropped",
            _yes(rule.is_alarming),
        )
        for rule in (*RULES, UNLISTED)
    )
    return _table(("Error", "Meaning", "Reaction", "Answer after the write", "Connection", "Alarm"), rows)


def _name(code: str | type[Exception]) -> str:
    return code if isinstance(code, str) else f"`{code.__name__}`"


def _requests() -> str:
    requests = dict.fromkeys(request for kind in DeviceKind for request in (Authenticate, *REQUESTS[kind]))
    rows = (
        (
            f"`{_wire_name(request)}`",
            ", ".join(kind for kind in DeviceKind if request in _messages(kind)),
            _choice(map(_wire_name, request.replies)),
        )
        for request in requests
    )
    return _table(("Request", "From", "Answer"), rows)


def _server_messages() -> str:
    receivers: dict[str, list[str]] = {}
    for kind in DeviceKind:
        for message in MESSAGES_TO[kind]:
            receivers.setdefault(_wire_name(message), []).append(kind)
    return _table(("Message", "To"), ((f"`{name}`", ", ".join(kinds)) for name, kinds in receivers.items()))


def _message(message: type[Any]) -> str:
    schema = message_schema(message)
    parts = [fill(" ".join(part.split()), _COLUMNS) for part in schema["description"].split("\n\n")]
    if replies := getattr(message, "replies", ()):
        parts.append(f"The answer is {_choice(map(_wire_name, replies))}.")
    return "\n\n".join([*parts, _fields(schema)])


def _fields(schema: dict[str, Any]) -> str:
    definitions = schema.get("$defs", {})
    rows = []
    # A client's `type` comes after the fields of its base class.
    for name in sorted(schema["properties"], key="type".__ne__):
        field = schema["properties"][name]
        options = field.get("anyOf", [field])
        first = next(option for option in options if option.get("type") != "null")
        described = definitions.get(first.get("$ref", "").rpartition("/")[2], first) | field
        kind = _type(described) + (" or null" if len(options) > 1 else "")
        if name not in schema["required"]:
            kind += "; optional" + (f", `{field['default']}`" if field.get("default") is not None else "")
        rows.append((f"`{name}`", kind, described.get("description", "")))
    return _table(("Field", "Type", "Meaning"), rows)


def _type(schema: dict[str, Any]) -> str:
    values = [schema["const"]] if "const" in schema else [value for value in schema.get("enum", ()) if value]
    if 0 < len(values) <= _ENUM_VALUES_MAX:
        return _choice(f'"{value}"' for value in values)
    match schema["type"]:
        case "string" if schema.get("format") == "uuid":
            return "UUID"
        case "string" if "maxLength" in schema:
            return f"string, up to {schema['maxLength']} characters"
        case "integer" if "maximum" in schema:
            return f"integer, {schema['minimum']} to {_POWERS.get(schema['maximum'], schema['maximum'])}"
        case "array":
            return "list"
    return str(schema["type"])


def _errors() -> str:
    rows = ((f"`{code}`", code.description, _yes(code.retryable)) for code in ErrorCode)
    return _table(("Code", "Meaning and action", "Retryable"), rows)


def _close_codes() -> str:
    rows = ((str(code.value), f"`{code.name.lower()}`", code.description, _yes(code.reconnect)) for code in CloseCode)
    return _table(("Code", "Name", "Meaning and action", "Reconnect"), rows)


def _declines() -> str:
    rows = (
        (f"`{code}`", code.description, _yes(advice.retryable), f"`{advice.next_step}`")
        for code, advice in ADVICE.items()
    )
    return _table(("Code", "Meaning", "Retryable", "Next step"), rows)


def _decline_texts() -> str:
    rows = (
        (f"`{code}`", *(decline_text(DEFAULT_LANGUAGE, side, code) for side in ("cashier", "customer")))
        for code in DeclineCode
    )
    return _table(("Code", "For the cashier", "For the customer"), rows)


def _amount(value: float, unit: str) -> str:
    return _POWERS.get(int(value)) or f"{value:.10g} {unit}".rstrip()


def _limits(limits: Iterable[tuple[str, str, str, str]]) -> str:
    rows = (
        (limit, _amount(DEFAULTS[setting], unit), f"`POS_{setting.upper()}`", consequence)
        for limit, setting, unit, consequence in limits
    )
    return _table(("Limit", "Default", "Setting", "Beyond it"), rows)


def _constants() -> str:
    return "".join(f"\n| {limit} | {_amount(value, unit)} | | `bad_field` |" for limit, value, unit in _CONSTANTS)


def _settings() -> str:
    rows = (
        (f"`POS_{name.upper()}`", _default(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    )
    return _table(("Setting", "Default", "Meaning"), rows)


def _default(value: object) -> str:
    if value is None or value in ("", frozenset(), {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _endpoints(role: Role) -> str:
    rows = ((f"`{each.method} {each.path}`", each.summary) for each in ENDPOINTS if each.role is role)
    return _table(("Request", "Effect"), rows)


def _rest_errors() -> str:
    codes: list[ProblemCode | ErrorCode] = [*ProblemCode, *(code for code in ErrorCode if code not in _OF_DEVICES)]
    rows = (
        (
            f"`{code}`",
            str(problem_text(code).status.value),
            problem_text(code).text,
            _yes(code.retryable if isinstance(code, ErrorCode) else code in _RETRYABLE_PROBLEMS),
        )
        for code in codes
    )
    return _table(("Code", "Status", "Meaning", "Retry"), sorted(rows, key=lambda row: row[1]))


def main() -> None:
    """Write the pages."""
    for path, text in [*current_pages()]:
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
