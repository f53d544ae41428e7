"""docs/protocol.md says what the server does: its tables against enums and models, its example against the core."""

import asyncio
import dataclasses
import json
import re
import typing
from collections import deque
from collections.abc import Sequence
from http import HTTPStatus
from types import NoneType
from typing import Any, Literal
from uuid import UUID

import asyncpg
import httpx
import pytest
from pydantic import BaseModel, TypeAdapter
from starlette.requests import Request
from starlette.types import Message
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response

from pos_client.device.disconnects import may_reconnect
from pos_server.api.activations import Activations
from pos_server.api.support.problems import Problem
from pos_server.app import open_app
from pos_server.clock import BusinessDays
from pos_server.core.accounting.shifts import REPORT_COLUMNS, Shift, Total, TotalKind
from pos_server.core.credentials import activation
from pos_server.core.credentials.activation import Activation, ActivationRequest, activation_code
from pos_server.core.credentials.device_keys import NONCE_BYTES, DeviceId, DeviceKind, Keyring, authentication_mac
from pos_server.core.errors import CloseCode, ErrorCode, MessageError
from pos_server.core.money import MAX_AMOUNT_MINOR
from pos_server.core.payments.decide import decide
from pos_server.core.payments.declines import ADVICE, ADVICE_CANCELED, ADVICE_EXPIRED, NextStep
from pos_server.core.payments.operations import Cancel, Confirm, CreateRefund, Entry, Operation, Scan
from pos_server.core.payments.payment import DeclineCode, Payment, Status
from pos_server.core.payments.snapshot import (
    Acceptor,
    DeviceStatus,
    MerchantStatus,
    Snapshot,
    TerminalStatus,
    Wallet,
    WalletDevice,
    WalletStatus,
)
from pos_server.core.protocol import client_messages, codec, fields, server_messages
from pos_server.core.protocol.client_messages import (
    Authenticate,
    PaymentCancel,
    PaymentConfirm,
    PaymentQuery,
    PaymentScan,
    PinSet,
    RefundCreate,
    TerminalRequest,
    WalletRequest,
)
from pos_server.core.protocol.codec import decode_client_message
from pos_server.core.protocol.notices import notices, shift_notice, terminal_notice
from pos_server.core.protocol.server_messages import PinChanged
from pos_server.core.protocol.session import Session
from pos_server.core.texts import DEFAULT_LANGUAGE, LANGUAGES, decline_text, language_of, text
from pos_server.ledger import directory
from pos_server.server import RunningServer, serving
from pos_server.settings import Settings
from tests.copies import replace
from tests.docs.documents import DOCS, Section, anchor, read
from tests.support import KEYRING, Shop, ask, forged, logged_in, new_id, raw_socket, receive, scan_message, settings

DOCUMENT = read("protocol.md")
DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}
DEFAULT_RULES = Settings.model_construct(**DEFAULTS).rules()
MODELS: dict[str, type] = {
    "hello": server_messages.Hello,
    "authenticate": client_messages.Authenticate,
    "ready, to a terminal": server_messages.TerminalReady,
    "ready, to a wallet": server_messages.WalletReady,
    "payment.scan": client_messages.PaymentScan,
    "payment.result, to a terminal": server_messages.TerminalPaymentResult,
    "payment.pending": server_messages.PaymentPending,
    "payment.query": client_messages.PaymentQuery,
    "payment.cancel": client_messages.PaymentCancel,
    "payments.recent": client_messages.PaymentsRecent,
    "payments.list": server_messages.PaymentList,
    "refund.create": client_messages.RefundCreate,
    "refund.result, to a terminal": server_messages.TerminalRefundResult,
    "shift.open": client_messages.ShiftOpen,
    "shift.close": client_messages.ShiftClose,
    "shift.query": client_messages.ShiftQuery,
    "shift.report": server_messages.ShiftReport,
    "payment.result, to a wallet": server_messages.WalletPaymentResult,
    "payment.confirmation_required": server_messages.ConfirmationRequired,
    "payment.confirm": client_messages.PaymentConfirm,
    "payment.reject": client_messages.PaymentReject,
    "refund.result, to a wallet": server_messages.WalletRefundResult,
    "pin.set": client_messages.PinSet,
    "pin.changed": server_messages.PinChanged,
    "history": client_messages.History,
    "history.page": server_messages.HistoryPage,
    "status.changed": server_messages.StatusChanged,
    "draining": server_messages.Draining,
    "error": server_messages.Error,
}
BODIES: dict[str, type[BaseModel]] = {"Activation request": ActivationRequest, "Activation answer": Activation}
WORDS = {str: "string", int: "integer", bool: "boolean", UUID: "UUID"}


# What a message is made of


def annotations(model: type) -> dict[str, Any]:
    """Field names and types, without their constraints, of a pydantic model or a dataclass."""
    hints = typing.get_type_hints(model)
    hints.pop("model_config", None)
    return hints


def optional(model: type, name: str) -> bool:
    """Whether a client may leave the field out. `type` has a default in Python only."""
    return issubclass(model, BaseModel) and name != "type" and not model.model_fields[name].is_required()


def in_words(model: type, name: str, annotation: Any) -> str:
    """How the document's type cell starts for this field."""
    if typing.get_origin(annotation) is Literal:
        return " or ".join(f'"{value}"' for value in typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        return "list"
    if annotation is DeviceKind:
        return " or ".join(f'"{kind}"' for kind in DeviceKind)
    options = typing.get_args(annotation) or (annotation,)
    word = WORDS[next(option for option in options if option is not NoneType)]
    return word + (" or null" if NoneType in options else "")


def test_every_message_has_its_section() -> None:
    every = {*typing.get_args(client_messages.ClientMessage), *typing.get_args(server_messages.ServerMessage)}
    assert len(MODELS) == len(every)
    assert set(MODELS.values()) == every
    sections = [section.title for section in DOCUMENT.section("Messages").sections]
    assert sections == list(MODELS)


@pytest.mark.parametrize("title", [*MODELS, *BODIES])
def test_field_table_lists_the_fields_of_the_model(title: str) -> None:
    model = (MODELS | BODIES)[title]
    table = DOCUMENT.section(title).table("Field", "Type", "Meaning")
    types = annotations(model)
    assert sorted(row["Field"] for row in table) == sorted(types)
    rows = {row["Field"]: row["Type"] for row in table}
    for name, annotation in types.items():
        word = in_words(model, name, annotation)
        assert re.match(rf"{re.escape(word)}(?:$|[,; ])", rows[name]), f"{name} is {word}"
        assert ("null" in rows[name]) == ("null" in word), name
        assert ("optional" in rows[name]) == optional(model, name), name
        stated = re.search(r"optional, (.+)$", rows[name])
        if stated:
            default = model.model_fields[name].default  # type: ignore[attr-defined]
            assert stated[1].strip('"') == ("null" if default is None else str(default)), name


def test_table_of_messages_names_senders_and_receivers() -> None:
    def types(union: Any) -> set[str]:
        return {model.__struct_defaults__[0] for model in typing.get_args(typing.get_args(union)[0])}

    rows = DOCUMENT.section("Messages").table("Message", "From", "To")
    of_clients = {model.model_fields["type"].default for model in typing.get_args(client_messages.ClientMessage)}
    assert {row["Message"] for row in rows if row["To"] == "server"} == of_clients
    for kind, union in (("terminal", server_messages.TerminalMessage), ("wallet", server_messages.WalletMessage)):
        assert {row["Message"] for row in rows if row["From"] == "server" and kind in row["To"]} == types(union)
    for row in rows:
        if row["To"] == "server":
            senders = {kind for kind in DeviceKind if may_send(kind, row["Message"])}
            assert set(row["From"].split(", ")) == senders


def may_send(kind: DeviceKind, message_type: str) -> bool:
    session = Session(kind)
    text = DOCUMENT.section(message_type).fence("json")
    if message_type != "authenticate":
        session.authenticated()
    try:
        session.receive(text)
    except MessageError as error:
        return error.code is not ErrorCode.UNKNOWN_TYPE
    return True


# Examples


def assert_is_exactly(model: type, text: str) -> None:
    """The JSON is what the server sends, or decodes to what a client sends, with no field more or less."""
    document = json.loads(text)
    decoded: Any = TypeAdapter(model).validate_json(text)
    if isinstance(decoded, BaseModel):
        assert decoded.model_dump(mode="json", exclude_unset=True) == document
    else:
        assert json.loads(codec.encode(decoded)) == document
        assert list(document) == list(decoded.__struct_fields__)


@pytest.mark.parametrize("title", [*MODELS, *BODIES])
def test_example_of_a_message_is_one(title: str) -> None:
    assert_is_exactly((MODELS | BODIES)[title], DOCUMENT.section(title).fence("json"))


@pytest.mark.parametrize("title", [title for title, model in MODELS.items() if issubclass(model, BaseModel)])
def test_example_of_a_client_is_accepted_by_the_server(title: str) -> None:
    assert isinstance(decode_client_message(DOCUMENT.section(title).fence("json")), MODELS[title])


def test_hello_shows_the_defaults() -> None:
    hello = json.loads(DOCUMENT.section("hello").fence("json"))
    assert len(bytes.fromhex(hello["nonce"])) == NONCE_BYTES
    assert (hello["protocol"], hello["heartbeat_s"], hello["authenticate_within_s"], hello["frame_bytes_max"]) == (
        server_messages.SUBPROTOCOL,
        DEFAULTS["heartbeat_s"],
        DEFAULTS["authentication_timeout_s"],
        DEFAULTS["frame_bytes_max"],
    )


def test_the_report_of_a_shift_is_what_its_figures_make() -> None:
    report = TypeAdapter(server_messages.ShiftReport).validate_json(DOCUMENT.section("shift.report").fence("json"))
    opened, made = re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d", report.text)
    shift = Shift(
        shift_id=report.shift_id,
        number=report.shift_number,
        terminal_number=report.terminal_number,
        merchant_name=report.merchant_name,
        store_name=report.store_name,
        operator=report.operator,
        currency=report.currency,
        opening_cash_minor=report.opening_cash_minor,
        opened_at_ms=report.opened_at_ms,
        closed_at_ms=report.closed_at_ms,
        counted_cash_minor=report.counted_cash_minor,
        made_at_ms=report.made_at_ms,
        opened_local=opened,
        made_local=made,
        totals={TotalKind(total.kind): Total(total.count, total.amount_minor) for total in report.totals},
    )
    assert shift_notice(shift, report.reply_to, "en") == report
    kinds = [row["kind"] for row in DOCUMENT.section("Shifts").table("kind", "What is counted")]
    assert kinds == [kind.value for kind in TotalKind]
    assert f"at most {REPORT_COLUMNS} columns" in DOCUMENT.section("shift.report").text


def test_every_block_of_json_is_looked_at() -> None:
    """None stands where the tests above and below do not see it."""
    looked_at = [DOCUMENT.section(title) for title in (*MODELS, *BODIES, "Activation errors", "Worked example")]
    assert sum(len(section.fences("json")) for section in looked_at) == len(DOCUMENT.fences("json"))


# Tables of codes


def test_errors_are_those_of_the_code_in_its_order() -> None:
    rows = DOCUMENT.section("Errors").table("Code", "Meaning", "Retryable", "What to do")
    assert [(row["Code"], row["Retryable"]) for row in rows] == [
        (code.value, "yes" if code.retryable else "no") for code in ErrorCode
    ]


def close_codes() -> list[dict[str, str]]:
    return DOCUMENT.section("Close codes").table("Code", "Name", "Meaning", "Then")


def test_close_codes_are_those_of_the_code_in_its_order() -> None:
    rows = [(int(row["Code"]), row["Name"], re.split(r"[:;]", row["Then"])[0]) for row in close_codes()]
    assert rows == [(code.value, code.name.lower(), "reconnect" if code.reconnect else "stop") for code in CloseCode]


def test_the_python_client_does_what_the_close_codes_say() -> None:
    rows = [*close_codes(), *DOCUMENT.section("Close codes").table("Code", "When", "Then")]
    assert {int(row["Code"]): row["Then"].startswith("reconnect") for row in rows} == {
        int(row["Code"]): may_reconnect(int(row["Code"])) for row in rows
    }


def yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


def test_declines_stand_in_order_of_precedence_with_their_advice() -> None:
    rows = DOCUMENT.section("Declines").table("Code", "Meaning", "Retryable", "Next step")
    assert [(row["Code"], row["Retryable"], row["Next step"]) for row in rows] == [
        (code.value, yes_or_no(ADVICE[code].retryable), ADVICE[code].next_step.value) for code in DeclineCode
    ]


def test_declines_stand_with_their_texts() -> None:
    rows = DOCUMENT.section("What people read").table("Code", "To the cashier", "To the customer")
    assert [(row["Code"], row["To the cashier"], row["To the customer"]) for row in rows] == [
        (code.value, *(decline_text("en", side, code) for side in ("cashier", "customer"))) for code in DeclineCode
    ]


def test_next_steps_are_those_of_the_code() -> None:
    section = DOCUMENT.section("Next steps")
    rows = section.table("Next step", "What the cashier does")
    assert [row["Next step"] for row in rows] == [step.value for step in NextStep]
    prose = words(section)
    for status, advice in ((Status.EXPIRED, ADVICE_EXPIRED), (Status.CANCELED, ADVICE_CANCELED)):
        retryable = "true" if advice.retryable else "false"
        assert re.search(rf"[Aa]fter `{status}` it is `{advice.next_step}`, and `retryable` is {retryable}", prose)


def test_statuses_are_those_of_the_code() -> None:
    for title in ("payment.result, to a terminal", "payment.result, to a wallet"):
        rows = {row["Field"]: row["Meaning"] for row in DOCUMENT.section(title).table("Field", "Type", "Meaning")}
        *first, last = (status for status in Status if status is not Status.PENDING)
        assert rows["status"] == f"{', '.join(first)} or {last}."


def test_languages_are_those_of_the_code() -> None:
    prose = words(DOCUMENT.section("Language"))
    assert {*re.findall(r"`(\w\w)`", prose)} == set(LANGUAGES)
    assert f"without `language`, it takes `{DEFAULT_LANGUAGE}`" in prose
    assert Authenticate.model_fields["language"].default == DEFAULT_LANGUAGE
    assert language_of("zh-CN") == "zh"


def words(section: Section) -> str:
    """The section's text in one line."""
    return " ".join(section.text.split())


def test_limits_are_the_defaults() -> None:
    constants = {
        "message_id": fields.MESSAGE_ID_CHARS_MAX,
        "reference": fields.REFERENCE_CHARS_MAX,
        "operator": client_messages.OPERATOR_CHARS_MAX,
        "amount_minor": MAX_AMOUNT_MINOR,
        "limit of payments.recent and history": client_messages.PAGE_MAX,
        "A PIN": 12,
    }
    for row in DOCUMENT.section("Limits and defaults").table("Limit", "Value", "Setting"):
        number = re.search(r"\d+(?:\.\d+)?", row["Value"])
        assert number is not None
        setting = row["Setting"].removeprefix("POS_").lower()
        assert float(number[0]) == (DEFAULTS[setting] if setting else constants.pop(row["Limit"])), row
    assert not constants


def test_links_lead_somewhere() -> None:
    for name in ("protocol.md", "payment-code.md", "payments.md", "archive.md"):
        document = read(name)
        prose = re.sub(r"^```.*?^```$", "", document.text, flags=re.DOTALL | re.MULTILINE)
        for file, fragment in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", prose):
            assert not file or (DOCS / file).is_file(), file
            target = read(file) if file else document
            assert not fragment or fragment in {anchor(section.title) for section in target.sections}, fragment


# The worked example, played through the core


@dataclasses.dataclass(frozen=True)
class Frame:
    sender: str
    receiver: str
    text: str

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.text)
        return document


EXAMPLE = DOCUMENT.section("Worked example")
WALLET_NUMBER = 1_000_000_001
MASTER_KEY = bytes.fromhex(
    json.loads(read("payment-code.md").section("Test vectors").fence("json"))["master_keys"]["M1"]
)


def frames(section: Section) -> list[Frame]:
    found = re.findall(r"^\*\*(\w+) → (\w+)\*\*\n\n```json\n(.*?)^```$", section.text, re.DOTALL | re.MULTILINE)
    return [Frame(sender.lower(), receiver.lower(), text) for sender, receiver, text in found]


class Play:
    """The server's side of the example: takes what clients say, and knows what has to come next."""

    def __init__(self) -> None:
        self.keyring = Keyring({"k1": MASTER_KEY}, current="k1")
        self.sessions: dict[str, Session] = {}
        self.nonces: dict[str, bytes] = {}
        self.kinds = {"till": DeviceKind.TERMINAL, "wallet": DeviceKind.WALLET}
        self.expected: deque[tuple[str, dict[str, Any]]] = deque()  # who is told what next
        self.pin = ""
        self.day_start_ms = BusinessDays(DEFAULTS["time_zone"]).start_ms
        self.snapshot = Snapshot(
            terminals={1001: Acceptor(TerminalStatus.ACTIVE, MerchantStatus.ACTIVE, 7, "Corner Canteen", "Main hall")},
            wallets={WALLET_NUMBER: Wallet(WALLET_NUMBER, 8, "EUR", 20_000, WalletStatus.ACTIVE, 1)},
            devices={(WALLET_NUMBER, 0): WalletDevice(WALLET_NUMBER, 0, "k1", 1, DeviceStatus.ACTIVE, 0)},
        )

    def key_of(self, number: int, slot: int, name: str) -> bytes:
        key = self.keyring.device_key("k1", DeviceId(self.kinds[name], number, slot), 1)
        assert key is not None
        return key

    def server_says(self, frame: Frame) -> None:
        match frame.document["type"]:
            case "hello":
                assert_is_exactly(server_messages.Hello, frame.text)
                self.nonces[frame.receiver] = bytes.fromhex(frame.document["nonce"])
                self.sessions[frame.receiver] = Session(self.kinds[frame.receiver])
            case "ready":
                model = server_messages.TerminalReady if frame.receiver == "till" else server_messages.WalletReady
                assert_is_exactly(model, frame.text)
                receiver, stated = self.expected.popleft()
                assert receiver == frame.receiver
                assert stated.items() <= frame.document.items()
            case "error":
                receiver, document = self.expected.popleft()
                assert_is_exactly(server_messages.Error, frame.text)
                # The text of a field's error is pydantic's own.
                assert (receiver, {**document, "message": ""}) == (frame.receiver, {**frame.document, "message": ""})
            case _:
                assert (frame.receiver, frame.document) == self.expected.popleft()

    def client_says(self, frame: Frame, decided_at_ms: int) -> None:
        session = self.sessions[frame.sender]
        try:
            message = session.receive(frame.text)
        except MessageError as error:
            document: dict[str, Any] = {"type": "error", "reply_to": error.reply_to, "code": error.code}
            document |= {"message": error.detail, "field": error.field}
            document |= {"retryable": error.code.retryable, "retry_after_s": None}
            self.expected.append((frame.sender, document))
            return
        if isinstance(message, Authenticate):
            key = self.key_of(message.id, message.slot, frame.sender)
            mac = authentication_mac(key, self.nonces[frame.sender], message.id)
            assert message.mac == mac.hex()
            session.authenticated()
            ready: dict[str, Any] = {"type": "ready", "reply_to": message.message_id, "resumed": True}
            if frame.sender == "wallet":
                wallet = self.snapshot.wallets[message.id]
                ready |= {
                    "balance_minor": wallet.balance_minor,
                    "pin_set": wallet.pin_set,
                    "status": wallet.status.value,
                }
            self.expected.append((frame.sender, ready))
            self.expected.extend((frame.sender, replayed) for replayed in self.missed(message))
            return
        self.expected.extend(self.answers(message, decided_at_ms))

    def missed(self, message: Authenticate) -> list[dict[str, Any]]:
        """What the till, the only one that resumes here, is told again."""
        if message.since_ms is None:
            return []
        after_ms = message.since_ms - DEFAULTS["resume_overlap_s"] * 1000
        return [
            self.at_till(payment, None)
            for payment in self.snapshot.payments.values()
            if payment.terminal_number == message.id and payment.changed_at_ms > after_ms
        ]

    def at_till(self, payment: Payment, reply_to: str | None) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(codec.encode(terminal_notice(payment, reply_to, DEFAULT_LANGUAGE)))
        return document

    def answers(self, message: TerminalRequest | WalletRequest, now_ms: int) -> Sequence[tuple[str, dict[str, Any]]]:
        match message:
            case PaymentQuery(payment_id=None, reference=str(reference)):
                occupant = self.snapshot.open_payments[5, reference]
                return [("till", self.at_till(self.snapshot.payments[occupant.payment_id], message.message_id))]
            case PinSet(old_pin=None):
                return [("wallet", self.set_pin(message))]
        return self.decide(self.operation(message), message.message_id, now_ms)

    def set_pin(self, message: PinSet) -> dict[str, Any]:
        wallet = self.snapshot.wallets[WALLET_NUMBER]
        assert not wallet.pin_set
        self.pin = message.new_pin
        self.snapshot.wallets[WALLET_NUMBER] = replace(wallet, pin_set=True, pin_generation=wallet.pin_generation + 1)
        changed = PinChanged(reply_to=message.message_id, text=text(DEFAULT_LANGUAGE, "customer.pin_changed"))
        document: dict[str, Any] = json.loads(codec.encode(changed))
        return document

    def operation(self, message: TerminalRequest | WalletRequest) -> Operation:
        match message:
            case PaymentScan():
                return Scan(
                    payment_id=message.payment_id,
                    terminal_number=1001,
                    merchant_id=5,
                    reference=message.reference,
                    amount_minor=message.amount_minor,
                    currency=message.currency,
                    code=message.code,
                    entry=Entry(message.entry),
                )
            case PaymentConfirm():
                return Confirm(
                    payment_id=message.payment_id,
                    wallet_number=WALLET_NUMBER,
                    slot=0,
                    version=message.version,
                    pin_correct=message.pin == self.pin,
                    pin_generation=self.snapshot.wallets[WALLET_NUMBER].pin_generation,
                )
            case PaymentCancel():
                return Cancel(1001, 5, "EUR", message.payment_id, message.reference, tombstone_id=UUID(int=1))
            case RefundCreate():
                return CreateRefund(message.refund_id, message.payment_id, 5, 1001, message.amount_minor)
        raise AssertionError(f"teach the play {message.type}")

    def decide(self, operation: Operation, reply_to: str, now_ms: int) -> list[tuple[str, dict[str, Any]]]:
        outcomes, _ = decide(
            [operation], self.snapshot, self.keyring, now_ms, DEFAULT_RULES, day_start_ms=self.day_start_ms(now_ms)
        )
        names = {kind: name for name, kind in self.kinds.items()}
        return [
            (names[notice.recipient.kind], json.loads(codec.encode(notice.render(DEFAULT_LANGUAGE))))
            for notice in notices(outcomes[0], reply_to)
            if notice.recipient.not_slot is None  # the wallet has one device: there are no others to tell
        ]


def test_worked_example_is_what_the_core_does() -> None:
    play = Play()
    said = [frame for section in EXAMPLE.sections[1:] for frame in frames(section)]
    assert len(said) + len(frames(EXAMPLE.sections[0])) == len(EXAMPLE.fences("json"))
    for frame, answer in zip(said, [*said[1:], None], strict=True):
        if frame.sender == "server":
            play.server_says(frame)
        else:
            assert not play.expected
            assert answer is not None
            play.client_says(frame, answer.document.get("decided_at_ms", 0))
    assert not play.expected


def test_worked_example_shows_an_approval_a_replay_a_repeat_a_paid_order_and_an_error() -> None:
    results = [
        frame.document for frame in frames(EXAMPLE) if frame.receiver == "till" and "payment_id" in frame.document
    ]
    first, replayed, repeated, again = results[:4]
    assert first["status"] == "approved"
    assert replayed == {**first, "reply_to": None}
    assert repeated == {**first, "reply_to": repeated["reply_to"]}
    assert (again["decline_code"], again["paid_by"]) == ("already_paid", first["payment_id"])
    assert frames(EXAMPLE)[-1].document["type"] == "error"


def test_worked_example_shows_a_pin_a_query_a_refund_and_a_cancel() -> None:
    at_till = [frame.document for frame in frames(EXAMPLE) if frame.receiver == "till"]
    pending, paid, asked, refund, canceled = [
        document for document in at_till if document.get("version") and document["decided_at_ms"] > 1772453730000
    ]
    assert (pending["type"], pending["version"]) == ("payment.pending", 1)
    assert (paid["status"], paid["version"], paid["reply_to"]) == ("approved", 3, None)
    assert asked == {**paid, "reply_to": asked["reply_to"]}
    assert (refund["type"], refund["version"], refund["refunded_minor"]) == ("refund.result", 4, 1200)
    assert (canceled["status"], canceled["version"]) == ("canceled", 2)
    wrong, right = [frame.document for frame in frames(EXAMPLE) if frame.document.get("type") == "payment.confirm"]
    assert wrong["pin"] != right["pin"]
    balances = [frame.document["balance_minor"] for frame in frames(EXAMPLE) if "balance_minor" in frame.document]
    assert balances[-1] == balances[0] - paid["amount_minor"] + refund["amount_minor"]


def test_worked_example_activates_its_devices() -> None:
    till_asks, till_gets, wallet_asks, wallet_gets = frames(EXAMPLE.sections[0])
    play = Play()
    for request, answer, name in ((till_asks, till_gets, "till"), (wallet_asks, wallet_gets, "wallet")):
        assert_is_exactly(ActivationRequest, request.text)
        assert_is_exactly(Activation, answer.text)
        device = Activation.model_validate_json(answer.text)
        assert device.kind is play.kinds[name]
        key = play.key_of(device.number, device.slot, name)
        assert TypeAdapter(bytes, config={"val_json_bytes": "base64"}).validate_json(f'"{device.device_key}"') == key
        text = request.document["activation_code"]
        assert activation.activation_hash(text.lower()) == activation.activation_hash(text)
        assert len(text) == len(activation_code(bytes(activation.ACTIVATION_BYTES)))


# What a real server answers


def problems() -> set[tuple[int, str]]:
    rows = DOCUMENT.section("Activation errors").table("Status", "Code", "Meaning", "What to do")
    return {(int(row["Status"]), row["Code"]) for row in rows}


async def no_body() -> dict[str, Any]:
    return {"type": "http.request", "body": json.dumps({"activation_code": "X", "request_id": str(new_id())}).encode()}


class PoolAway:
    def acquire(self) -> None:
        raise ConnectionRefusedError


@pytest.mark.asyncio
async def test_activation_errors_are_those_that_happen(server: RunningServer) -> None:
    good = {"activation_code": "X", "request_id": str(new_id())}
    seen = set()
    async with httpx.AsyncClient(base_url=server.url) as http:
        for body in ("no json", "[]", json.dumps({**good, "more": 1}), "x" * 1025, json.dumps(good)):
            seen.add(problem_of(await http.post("/v1/activations", content=body)))
        for _ in range(DEFAULTS["activation_failures_max"]):
            blocked = await http.post("/v1/activations", json=good)
        seen.add(problem_of(blocked))
        assert int(blocked.headers["Retry-After"]) > 0
    activations = Activations(KEYRING, PoolAway(), None, settings().wrong_activation_codes(), body_bytes_max=1024)  # type: ignore[arg-type]
    request = Request({"type": "http", "method": "POST", "headers": [], "client": ("127.0.0.1", 1)}, no_body)
    with pytest.raises(Problem) as away:
        await activations.create(request)
    seen.add((away.value.status.value, away.value.code))
    assert int(away.value.headers["Retry-After"]) > 0
    assert seen == problems()


def problem_of(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["Content-Type"] == "application/problem+json"
    body = response.json()
    example = json.loads(DOCUMENT.section("Activation errors").fence("json"))
    assert body.keys() - {"pointer"} == example.keys()
    if body["code"] == example["code"]:
        assert body == example
    assert ("pointer" in body) == (body["code"] == "bad_field")
    return response.status_code, body["code"]


@pytest.mark.asyncio
async def test_activation_can_be_repeated_with_its_request_id(
    server: RunningServer, shop: Shop, connection: asyncpg.Connection
) -> None:
    code = activation_code(bytes(range(10)))
    await directory.issue_activation(
        connection, DeviceId(DeviceKind.WALLET, shop.wallets[0].device.number, 3), code, ttl_s=60
    )
    body = {"activation_code": code, "request_id": str(new_id())}
    async with httpx.AsyncClient(base_url=server.url) as http:
        answers = [
            await http.post("/v1/activations", json=body),
            await http.post("/v1/activations", json={**body, "activation_code": code.lower().replace("-", " ")}),
            await http.post("/v1/activations", json={**body, "request_id": str(new_id())}),
        ]
    assert [answer.status_code for answer in answers] == [HTTPStatus.OK, HTTPStatus.OK, HTTPStatus.NOT_FOUND]
    assert answers[0].json() == answers[1].json()
    assert_is_exactly(Activation, answers[0].text)


async def refused(url: str, **options: Any) -> Response:
    """The HTTP response to an upgrade that the server refuses."""
    with pytest.raises(InvalidStatus) as error:
        await connect(url, **options)
    return error.value.response


@pytest.mark.asyncio
async def test_refused_upgrades_have_the_stated_status(server: RunningServer, dsn: str) -> None:
    rows = DOCUMENT.section("Connecting").table("HTTP status", "Meaning", "What to do")
    address = server.url.replace("http", "ws", 1)
    offer = {"subprotocols": [server_messages.SUBPROTOCOL]}
    seen = {(await refused(f"{address}/v1/terminal")).status_code}
    seen.add((await refused(f"{address}/v1/nothing", **offer)).status_code)
    assert (await refused(f"{address}/v1/wallet", origin="https://shop.example", **offer)).status_code in seen
    async with httpx.AsyncClient(base_url=server.url) as http:
        seen.add((await http.get("/v1/terminal")).status_code)
    for limit in ("address_connections_max", "connections_max"):
        async with (
            serving(settings(**{limit: 1}), KEYRING, dsn) as small,
            raw_socket(small.url, DeviceKind.WALLET),
        ):
            full = await refused(f"{small.url.replace('http', 'ws', 1)}/v1/wallet", **offer)
        assert int(full.headers["Retry-After"]) > 0
        seen.add(full.status_code)
    assert [row["HTTP status"] for row in rows] == [*map(str, sorted(seen)), "5xx"]
    urls = {row["Device"]: row["URL"] for row in DOCUMENT.section("Connecting").table("Device", "URL")}
    assert urls == {kind.value: f"wss://HOST/v1/{kind}" for kind in DeviceKind}


@pytest.mark.asyncio
async def test_a_server_that_is_stopping_says_what_is_stated(dsn: str) -> None:
    async with (
        open_app(settings(), KEYRING, dsn) as app,
        httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://server") as http,
    ):
        seen = {(path, (await http.get(path)).status_code) for path in ("/healthz", "/readyz")}
        await app.drain()
        seen |= {(path, (await http.get(path)).status_code) for path in ("/healthz", "/readyz")}
        scope = {
            "type": "websocket",
            "path": "/v1/terminal",
            "headers": [],
            "subprotocols": [server_messages.SUBPROTOCOL],
            "extensions": {"websocket.http.response": {}},
        }
        sent = list[Any]()

        async def keep(event: Any) -> None:
            sent.append(event)

        await app.asgi(scope, no_body, keep)
    assert sent[0]["status"] == HTTPStatus.SERVICE_UNAVAILABLE
    assert int(dict(sent[0]["headers"])[b"retry-after"]) > 0
    rows = DOCUMENT.section("Health").table("Path", "Status", "Meaning")
    assert {(row["Path"], int(row["Status"])) for row in rows} == seen


async def no_answer(message: Message) -> None:
    raise AssertionError(message)


@pytest.mark.asyncio
async def test_patience_ends_where_it_is_said_to(server: RunningServer, shop: Shop) -> None:
    burst, every_s = DEFAULTS["bad_messages_burst"], 1 / DEFAULTS["bad_messages_per_s"]
    text = " ".join(DOCUMENT.section("Patience").text.split())
    assert f"{burst} at once, and then one every {every_s:.0f} s, for each connection" in text
    async with logged_in(server.url, shop.terminals[0]) as till:
        for _ in range(burst + 1):
            assert (await ask(till, scan_message("x", currency="USD")))["code"] == "wrong_currency"
        with pytest.raises(ConnectionClosed) as closed:
            await receive(till)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == CloseCode.TOO_MANY_MESSAGES


@pytest.mark.asyncio
async def test_the_errors_of_a_scan_come_in_the_stated_order(dsn: str, shop: Shop) -> None:
    """A message with every fault that a running server can find at once gets the first; without that one the next."""
    section = DOCUMENT.section("Errors")
    stated = re.findall(r"`(\w+)`", section.text.partition("A message is checked in this order")[2])
    assert stated[:4] == ["unknown_type", "bad_field", "unknown_type", "too_many_messages"]
    columns = ("Message", "Before it is queued or carried out", "After that")
    of_scan = {row["Message"]: row for row in section.table(*columns)}["payment.scan"]
    assert of_scan[columns[1]].split(", ") == ["wrong_currency", "too_many_bad_codes", "draining", "busy"]
    slow = settings(messages_burst=1, messages_per_s=0.001, bad_codes_max=1)
    async with serving(slow, KEYRING, dsn) as server, logged_in(server.url, shop.terminals[0]) as till:
        bad = {"currency": "USD"}
        seen = [
            (await ask(till, scan_message("x", type="payment.scam", amount_minor=0)))["code"],
            (await ask(till, scan_message("x", amount_minor=0, **bad)))["code"],
            (await ask(till, scan_message(forged(shop.wallets[0].code()))))["decline_code"],
            (await ask(till, scan_message("x", **bad)))["code"],
        ]
    assert seen == ["unknown_type", "bad_field", "code_invalid", "too_many_messages"]
    async with (
        serving(settings(bad_codes_max=1), KEYRING, dsn) as server,
        logged_in(server.url, shop.terminals[0]) as till,
    ):
        await ask(till, scan_message(forged(shop.wallets[0].code())))
        seen = [
            (await ask(till, scan_message("x", **bad)))["code"],
            (await ask(till, scan_message("x")))["code"],
        ]
    assert seen == ["wrong_currency", "too_many_bad_codes"]


def test_numbers_in_the_prose_are_the_defaults() -> None:
    defaults = DEFAULTS
    for title, sentence in (
        ("Messages", f"may have up to {defaults['device_operations_max']} scans, cancels and refunds open"),
        ("Messages", f"may have up to {defaults['device_operations_max']} confirmations and rejections open"),
        (
            "Messages",
            f"may send {defaults['messages_burst']} messages at once and {defaults['messages_per_s']:.0f} a second",
        ),
        ("Revocation", f"It checks every {defaults['revocation_check_s']:.0f} s (`POS_REVOCATION_CHECK_S`)"),
        ("Resume", f"starts {defaults['resume_overlap_s']:.0f} s before `since_ms` (`POS_RESUME_OVERLAP_S`)"),
        ("Resume", f"more than {defaults['resume_payments_max']} results to replay (`POS_RESUME_PAYMENTS_MAX`)"),
        ("Heartbeat", f"within {defaults['heartbeat_timeout_s']:.0f} s (`POS_HEARTBEAT_TIMEOUT_S`)"),
        ("Close codes", f"acknowledges nothing for {defaults['tcp_user_timeout_s']:.0f} s"),
    ):
        assert sentence in " ".join(DOCUMENT.section(title).text.split()), sentence


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x02{}", 1002),  # not masked
        (b"\x81\x82\x00\x00\x00\x00\xff\xff", 1007),
        (b"\x81\xfe\x10\x01\x00\x00\x00\x00" + b"x" * 4097, 1009),
    ],
)
async def test_standard_close_codes_are_those_that_happen(
    server: RunningServer, shop: Shop, frame: bytes, code: int
) -> None:
    rows = DOCUMENT.section("Close codes").table("Code", "When", "Then")
    assert str(code) in {row["Code"] for row in rows}
    async with logged_in(server.url, shop.terminals[0]) as socket:
        socket.transport.write(frame)
        with pytest.raises(ConnectionClosed) as closed:
            async with asyncio.timeout(5):
                await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code
