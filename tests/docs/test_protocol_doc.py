"""docs/protocol.md against the server: its examples are messages, its worked example and its tables are played.

scripts/reference_tables.py generates the tables of messages, codes and limits; test_reference_tables.py compares them.
Long, because it plays the whole page.
"""

import asyncio
import dataclasses
import json
import re
from collections import deque
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from uuid import UUID

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
from pos_server.business_days import CurrentDay
from pos_server.core.accounting.shifts import Shift, Total, TotalKind
from pos_server.core.credentials import activation
from pos_server.core.credentials.activation import Activation, ActivationRequest, activation_code
from pos_server.core.credentials.device_keys import NONCE_BYTES, DeviceId, DeviceKind, Keyring, authentication_mac
from pos_server.core.errors import MessageError
from pos_server.core.payments.decide import decide
from pos_server.core.payments.declines import ADVICE_CANCELED, ADVICE_EXPIRED
from pos_server.core.payments.operations import Cancel, Confirm, CreateRefund, Entry, Operation, Scan
from pos_server.core.payments.payment import Payment, Status
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
from pos_server.core.protocol.client_messages import (
    REQUESTS,
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
from pos_server.core.protocol.codec import decode_client_message, encode
from pos_server.core.protocol.notices import notices, shift_notice, terminal_notice
from pos_server.core.protocol.server_messages import (
    MESSAGES_TO,
    SUBPROTOCOL,
    Error,
    Hello,
    PinChanged,
    Replayed,
    ShiftReport,
    TerminalReady,
    WalletReady,
)
from pos_server.core.protocol.session import Session
from pos_server.core.texts import DEFAULT_LANGUAGE, LANGUAGES, language_of, text
from pos_server.ledger.failures import NotConnected
from pos_server.server import RunningServer, serving
from pos_server.settings import Settings
from tests.copies import replace
from tests.docs.documents import Section, read
from tests.support import KEYRING, Shop, ask, forged, logged_in, new_id, raw_socket, scan_message, settings

DOCUMENT = read("protocol.md")
DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}
DEFAULT_RULES = Settings.model_construct(**DEFAULTS).rules()
MESSAGES: dict[str, type] = {
    message.__name__: message for kind in DeviceKind for message in (Authenticate, *REQUESTS[kind], *MESSAGES_TO[kind])
}
BODIES: dict[str, type[BaseModel]] = {"ActivationRequest": ActivationRequest, "Activation": Activation}
# The section of each class, by the marker of its generated table.
SECTIONS = {
    name: section
    for section in DOCUMENT.sections
    for name in re.findall(r"^<!-- generated: (\w+) -->$", section.text, re.MULTILINE)
    if not section.sections
}


def words(section: Section) -> str:
    """The section's text in one line."""
    return " ".join(section.text.split())


# Examples


def assert_is_exactly(model: type, text: str) -> None:
    """The JSON is what the server sends, or decodes to what a client sends, with no field more or less."""
    document = json.loads(text)
    decoded: Any = TypeAdapter(model).validate_json(text)
    if isinstance(decoded, BaseModel):
        assert decoded.model_dump(mode="json", exclude_unset=True) == document
    else:
        assert json.loads(encode(decoded)) == document
        assert list(document) == list(decoded.__struct_fields__)


@pytest.mark.parametrize("name", [*MESSAGES, *BODIES])
def test_the_example_of_a_message_is_one(name: str) -> None:
    model = (MESSAGES | BODIES)[name]
    example = SECTIONS[name].fence("json")
    assert_is_exactly(model, example)
    if name in MESSAGES:
        assert SECTIONS[name].title.split(",")[0] == json.loads(example)["type"]
        if issubclass(model, BaseModel):
            assert isinstance(decode_client_message(example), model)


def test_hello_shows_the_defaults() -> None:
    hello = json.loads(SECTIONS["Hello"].fence("json"))
    assert len(bytes.fromhex(hello["nonce"])) == NONCE_BYTES
    assert (hello["protocol"], hello["heartbeat_s"], hello["authenticate_within_s"], hello["frame_bytes_max"]) == (
        SUBPROTOCOL,
        DEFAULTS["heartbeat_s"],
        DEFAULTS["authentication_timeout_s"],
        DEFAULTS["frame_bytes_max"],
    )


def test_the_text_of_the_shift_report_fits_its_figures() -> None:
    report = TypeAdapter(ShiftReport).validate_json(DOCUMENT.section("shift.report").fence("json"))
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


def test_every_block_of_json_is_validated() -> None:
    others = [DOCUMENT.section(title) for title in ("Activation errors", "Worked example")]
    validated = sum(len(section.fences("json")) for section in (*SECTIONS.values(), *others))
    assert validated == len(DOCUMENT.fences("json"))


# Prose


def test_numbers_in_the_prose_are_the_defaults() -> None:
    """A number before a setting in parentheses is its default; so it is in docs/payments.md."""
    seen = 0
    for page in ("protocol.md", "payments.md"):
        for before, setting in re.findall(r"([^(]*)\(`POS_(\w+)`\)", words(read(page))):
            *_, (number, unit) = re.findall(r"(\d[\d.]*)(?:th|rd)?(?: (h|min)\b)?", before)
            default = DEFAULTS[setting.lower()]
            assert float(number) * {"h": 3600, "min": 60}.get(unit, 1) == default, f"{before[-60:]} (POS_{setting})"
            seen += 1
    assert seen > 20


def test_an_unknown_outcome_is_settled_within_the_limits() -> None:
    """The intervals in "When the outcome is unknown" fit the server's."""
    deadline_s = DEFAULTS["operation_deadline_s"] + DEFAULTS["batch_attempts_max"] * DEFAULTS["batch_timeout_s"]
    assert deadline_s <= 40
    assert DEFAULTS["queries_per_s"] > 1 / 5
    prose = words(DOCUMENT.section("When the outcome is unknown"))
    for sentence in (
        "up to about 40 s with the default settings",
        "again every 5 s",
        "After 60 s, send `payment.cancel`",
    ):
        assert sentence in prose


def test_languages_are_those_of_the_server() -> None:
    prose = words(DOCUMENT.section("Language"))
    assert {*re.findall(r"`(\w\w)`", prose)} == set(LANGUAGES)
    assert f"without `language`, it uses `{DEFAULT_LANGUAGE}`" in prose
    assert language_of("zh-CN") == "zh"


def test_statuses_have_the_stated_next_steps() -> None:
    prose = words(DOCUMENT.section("Next steps"))
    for status, advice in ((Status.EXPIRED, ADVICE_EXPIRED), (Status.CANCELED, ADVICE_CANCELED)):
        retryable = "true" if advice.retryable else "false"
        assert re.search(rf"[Aa]fter `{status}` it is `{advice.next_step}`, and `retryable` is {retryable}", prose)


def test_the_python_client_obeys_the_standard_close_codes() -> None:
    rows = DOCUMENT.section("Close codes").table("Code", "Cause", "Action")
    assert {int(row["Code"]): row["Action"].startswith("Reconnect") for row in rows} == {
        int(row["Code"]): may_reconnect(int(row["Code"])) for row in rows
    }


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
    """The server's side of the example: receives the clients' messages, and expects the server's next ones."""

    def __init__(self) -> None:
        self.keyring = Keyring({"k1": MASTER_KEY}, current="k1")
        self.sessions: dict[str, Session] = {}
        self.nonces: dict[str, bytes] = {}
        self.kinds = {"till": DeviceKind.TERMINAL, "wallet": DeviceKind.WALLET}
        self.expected: deque[tuple[str, dict[str, Any]]] = deque()  # the expected messages and their receivers
        self.pin = ""
        self.ready_at_ms = 0
        self.day_start_ms = CurrentDay(DEFAULTS["time_zone"]).start_ms
        self.snapshot = Snapshot(
            terminals={1001: Acceptor(TerminalStatus.ACTIVE, MerchantStatus.ACTIVE, 7, "Corner Canteen", "Main hall")},
            wallets={WALLET_NUMBER: Wallet(WALLET_NUMBER, 8, "EUR", 20_000, WalletStatus.ACTIVE, 1)},
            devices={(WALLET_NUMBER, 0): WalletDevice(WALLET_NUMBER, 0, "k1", 1, DeviceStatus.ACTIVE, 0)},
        )

    def key_of(self, number: int, slot: int, name: str) -> bytes:
        key = self.keyring.device_key("k1", DeviceId(self.kinds[name], number, slot), 1)
        assert key is not None
        return key

    def from_server(self, frame: Frame) -> None:
        match frame.document["type"]:
            case "hello":
                assert_is_exactly(Hello, frame.text)
                self.nonces[frame.receiver] = bytes.fromhex(frame.document["nonce"])
                self.sessions[frame.receiver] = Session(self.kinds[frame.receiver])
            case "ready":
                model = TerminalReady if frame.receiver == "till" else WalletReady
                assert_is_exactly(model, frame.text)
                receiver, stated = self.expected.popleft()
                assert receiver == frame.receiver
                assert stated.items() <= frame.document.items()
                self.ready_at_ms = frame.document["server_time_ms"]
            case "replayed":
                assert_is_exactly(Replayed, frame.text)
                receiver, stated = self.expected.popleft()
                assert (receiver, stated | {"since_ms": self.ready_at_ms}) == (frame.receiver, frame.document)
            case "error":
                receiver, document = self.expected.popleft()
                assert_is_exactly(Error, frame.text)
                # The text of a field's error is pydantic's own.
                assert (receiver, {**document, "message": ""}) == (frame.receiver, {**frame.document, "message": ""})
            case _:
                assert (frame.receiver, frame.document) == self.expected.popleft()

    def from_client(self, frame: Frame, decided_at_ms: int) -> None:
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
            if message.since_ms is not None:
                end = {"type": "replayed", "reply_to": message.message_id, "next_cursor": None}
                self.expected.append((frame.sender, end))
            return
        self.expected.extend(self.answers(message, decided_at_ms))

    def missed(self, message: Authenticate) -> list[dict[str, Any]]:
        """Messages replayed to the till, the only device that resumes here."""
        if message.since_ms is None:
            return []
        after_ms = message.since_ms - DEFAULTS["resume_overlap_s"] * 1000
        return [
            self.at_till(payment, None)
            for payment in self.snapshot.payments.values()
            if payment.terminal_number == message.id and payment.changed_at_ms > after_ms
        ]

    def at_till(self, payment: Payment, reply_to: str | None) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(encode(terminal_notice(payment, reply_to, DEFAULT_LANGUAGE)))
        return document

    def answers(self, message: TerminalRequest | WalletRequest, now_ms: int) -> Sequence[tuple[str, dict[str, Any]]]:
        match message:
            case PaymentQuery(payment_id=None, reference=str(reference)):
                occupant = self.snapshot.open_payments[5, reference]
                return [("till", self.at_till(self.snapshot.payments[5, occupant.payment_id], message.message_id))]
            case PinSet(old_pin=None):
                return [("wallet", self.set_pin(message))]
        return self.decide(self.operation(message), message.message_id, now_ms)

    def set_pin(self, message: PinSet) -> dict[str, Any]:
        wallet = self.snapshot.wallets[WALLET_NUMBER]
        assert not wallet.pin_set
        self.pin = message.new_pin
        self.snapshot.wallets[WALLET_NUMBER] = replace(wallet, pin_set=True, pin_generation=wallet.pin_generation + 1)
        changed = PinChanged(reply_to=message.message_id, text=text(DEFAULT_LANGUAGE, "customer.pin_changed"))
        document: dict[str, Any] = json.loads(encode(changed))
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
                    merchant_id=message.merchant_id or 0,
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
        raise AssertionError(f"extend the play {message.type}")

    def decide(self, operation: Operation, reply_to: str, now_ms: int) -> list[tuple[str, dict[str, Any]]]:
        outcomes, _ = decide(
            [operation], self.snapshot, self.keyring, now_ms, DEFAULT_RULES, day_start_ms=self.day_start_ms(now_ms)
        )
        names = {kind: name for name, kind in self.kinds.items()}
        return [
            (names[notice.recipient.kind], json.loads(encode(notice.render(DEFAULT_LANGUAGE))))
            for notice in notices(outcomes[0], reply_to)
            if notice.recipient.not_slot is None  # the wallet's only device is the recipient
        ]


def test_worked_example_is_what_the_core_does() -> None:
    play = Play()
    played = [frame for section in EXAMPLE.sections[1:] for frame in frames(section)]
    assert len(played) + len(frames(EXAMPLE.sections[0])) == len(EXAMPLE.fences("json"))
    for frame, answer in zip(played, [*played[1:], None], strict=True):
        if frame.sender == "server":
            play.from_server(frame)
        else:
            assert not play.expected
            assert answer is not None
            play.from_client(frame, answer.document.get("decided_at_ms", 0))
    assert not play.expected


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


# A real server


def problems() -> set[tuple[int, str]]:
    rows = DOCUMENT.section("Activation errors").table("Status", "Code", "Meaning", "Action")
    return {(int(row["Status"]), row["Code"]) for row in rows}


async def no_body() -> dict[str, Any]:
    return {"type": "http.request", "body": json.dumps({"activation_code": "X", "request_id": str(new_id())}).encode()}


class FailingPool:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def acquire(self) -> None:
        raise self._error


@pytest.mark.asyncio
async def test_activation_errors_are_in_the_table(server: RunningServer) -> None:
    good = {"activation_code": "X", "request_id": str(new_id())}
    seen = set()
    async with httpx.AsyncClient(base_url=server.url) as http:
        for body in ("no json", "[]", json.dumps({**good, "more": 1}), "x" * 1025, json.dumps(good)):
            seen.add(problem_of(await http.post("/v1/activations", content=body)))
        for _ in range(DEFAULTS["activation_failures_max"]):
            blocked = await http.post("/v1/activations", json=good)
        seen.add(problem_of(blocked))
        assert int(blocked.headers["Retry-After"]) > 0
    # No connection, and a connection that is lost before the answer.
    for error in (NotConnected("refused"), ConnectionResetError("reset")):
        pool: Any = FailingPool(error)
        activations = Activations(KEYRING, pool, None, settings().wrong_activation_codes(), body_bytes_max=1024)  # type: ignore[arg-type]
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


async def refused(url: str, **options: Any) -> Response:
    """The HTTP response to an upgrade that the server refuses."""
    with pytest.raises(InvalidStatus) as error:
        await connect(url, **options)
    return error.value.response


@pytest.mark.asyncio
async def test_refused_upgrades_have_the_stated_status(server: RunningServer, dsn: str) -> None:
    rows = DOCUMENT.section("Connecting").table("HTTP status", "Meaning", "Action")
    address = server.url.replace("http", "ws", 1)
    offer = {"subprotocols": [SUBPROTOCOL]}
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
    many_headers = {f"x-{number}": "v" for number in range(200)}
    seen.add((await refused(f"{address}/v1/terminal", additional_headers=many_headers, **offer)).status_code)
    assert [row["HTTP status"] for row in rows] == [*map(str, sorted(seen)), "5xx"]
    urls = {row["Device"]: row["URL"] for row in DOCUMENT.section("Connecting").table("Device", "URL")}
    assert urls == {kind.value: f"wss://HOST/v1/{kind}" for kind in DeviceKind}


@pytest.mark.asyncio
async def test_health_of_a_stopping_server(dsn: str) -> None:
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
            "subprotocols": [SUBPROTOCOL],
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
async def test_the_errors_of_a_scan_come_in_the_stated_order(dsn: str, shop: Shop) -> None:
    """A message with every fault that a running server can find at once gets the first; without that one the next."""
    section = DOCUMENT.section("Errors")
    stated = re.findall(r"`(\w+)`", section.text.partition("A message is checked in this order")[2])
    assert stated[:4] == ["unknown_type", "bad_field", "unknown_type", "too_many_messages"]
    columns = ("Message", "Before it is queued or carried out", "Afterwards")
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


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x02{}", 1002),  # not masked
        (b"\x81\x82\x00\x00\x00\x00\xff\xff", 1007),
        (b"\x81\xfe\x10\x01\x00\x00\x00\x00" + b"x" * 4097, 1009),
    ],
)
async def test_standard_close_codes_are_in_the_table(
    server: RunningServer, shop: Shop, frame: bytes, code: int
) -> None:
    rows = DOCUMENT.section("Close codes").table("Code", "Cause", "Action")
    assert str(code) in {row["Code"] for row in rows}
    async with logged_in(server.url, shop.terminals[0]) as socket:
        socket.transport.write(frame)
        with pytest.raises(ConnectionClosed) as closed:
            async with asyncio.timeout(5):
                await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code
