"""A till and a wallet that share no code with the server, written from docs/protocol.md and docs/payment-code.md only.

They pay; repeat the scan; try a used code, a paid order and a forged code; pay with a PIN after a wrong one; lose an
answer and query the outcome; refund, cancel, and list payments. The results are printed as one JSON object. Anything
that the documents do not promise ends the program with a message and status 1.
"""

import base64
import hmac
import json
import struct
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from websockets.typing import Subprotocol

WAIT_S = 10.0
PIN, WRONG_PIN = "407186", "407168"
Json = dict[str, Any]


def expect(truth: bool, subject: str, value: object) -> None:
    if not truth:
        raise ValueError(f"unexpected {subject}: {value}")


def activate(server: str, activation_code: str, kind: str) -> Json:
    body = json.dumps({"activation_code": activation_code, "request_id": str(uuid.uuid4())}).encode()
    request = urllib.request.Request(f"{server}/v1/activations", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as response:
            device: Json = json.load(response)
    except urllib.error.HTTPError as error:
        raise ValueError(f"activation of the {kind}: {error.code} {error.read().decode()}") from error
    expect(device["kind"] == kind, f"kind instead of {kind}", device["kind"])
    return device


class Device:
    """An activated device on its authenticated connection."""

    def __init__(self, server: str, device: Json, stack: ExitStack) -> None:
        self.number, self.slot = device["number"], device["slot"]
        self.key = base64.b64decode(device["device_key"], validate=True)
        self.last_used = (-1, 0)
        url, offer = f"ws{server.removeprefix('http')}/v1/{device['kind']}", [Subprotocol("pos.v1")]
        self.socket = stack.enter_context(connect(url, subprotocols=offer, open_timeout=WAIT_S, close_timeout=WAIT_S))
        expect(self.socket.subprotocol == "pos.v1", "subprotocol", self.socket.subprotocol)
        hello = self.receive("hello")
        self.offset_ms = hello["server_time_ms"] - time.time_ns() // 1_000_000
        text = b"ws-auth-1" + bytes.fromhex(hello["nonce"]) + struct.pack(">Q", self.number)
        identity = {"id": self.number, "slot": self.slot, "kid": device["kid"]}
        self.send("authenticate", "1", {**identity, "mac": hmac.digest(self.key, text, "sha256").hex()})
        self.ready = self.receive("ready", reply_to="1")

    def send(self, kind: str, message_id: str, fields: Json) -> None:
        self.socket.send(json.dumps({"type": kind, "message_id": message_id, **fields}))

    def messages(self, expected: object) -> Iterator[Json]:
        """Yield messages as they arrive. `expected` is for the error when none arrives in time."""
        deadline = time.monotonic() + WAIT_S
        while True:
            remaining_s = deadline - time.monotonic()
            expect(remaining_s > 0, "silence instead of", expected)
            yield json.loads(self.socket.recv(timeout=remaining_s))

    def receive(self, kind: str, **fields: str | None) -> Json:
        """Return the next message of this type with these fields. Skip others, but fail on an error."""
        for message in self.messages((kind, fields)):
            expect(message["type"] != "error", f"error instead of {kind}", message)
            if message["type"] == kind and all(message[name] == value for name, value in fields.items()):
                return message
        raise AssertionError

    def ask(self, kind: str, fields: Json) -> Json:
        """Send a message and return its answer, which can be an error."""
        message_id = str(uuid.uuid4())
        self.send(kind, message_id, fields)
        return next(message for message in self.messages(kind) if message.get("reply_to") == message_id)

    def step_and_seq(self) -> tuple[int, int]:
        step = (time.time_ns() // 1_000_000 + self.offset_ms) // 30_000
        seq = 0 if step > self.last_used[0] else self.last_used[1] + 1
        expect(step >= self.last_used[0] and seq <= 9, "end of the codes", (step, seq))
        return step, seq

    def payment_code(self) -> str:
        step, seq = self.step_and_seq()
        digest = hmac.digest(self.key, b"pc1" + struct.pack(">QBQB", self.number, self.slot, step, seq), "sha256")
        return f"77{self.number:010d}{self.slot}{seq}{int.from_bytes(digest[:8], 'big') % 10**10:010d}"

    def notice(self, payment_id: str, kind: str = "payment.result") -> Json:
        """Wait for the first notice of a payment. It uses up the code that is currently shown."""
        notice = self.receive(kind, payment_id=payment_id)
        self.last_used = self.step_and_seq()
        return notice

    def scan(self, message_id: str, payment: Json) -> Json:
        self.send("payment.scan", message_id, payment)
        return self.receive("payment.result", reply_to=message_id, payment_id=payment["payment_id"])


def new_payment(till: Device, order: str, code: str) -> Json:
    shared = {"amount_minor": 420, "currency": till.ready["currency"]}
    return {"payment_id": str(uuid.uuid4()), "reference": order, "code": code, **shared}


def new_order() -> str:
    return f"raw-{uuid.uuid4()}"


def pay(till: Device, phone: Device) -> Json:
    """Make a payment, then a repeat and three that are declined."""
    first_order, second_order, third_order = (new_order() for _ in range(3))
    first = new_payment(till, first_order, phone.payment_code())
    approved, notice = till.scan("2", first), phone.notice(first["payment_id"])
    expect(approved["status"] == notice["status"] == "approved", "first answer", (approved, notice))
    expect(notice["balance_minor"] == phone.ready["balance_minor"] - 420, "balance", (phone.ready, notice))

    repeat, repeat_notice = till.scan("3", first), phone.receive("payment.result", payment_id=first["payment_id"])
    repeat_equal = repeat == {**approved, "reply_to": "3"} and repeat_notice == notice
    expect(repeat_equal, "answer to the repeat", (repeat, repeat_notice))

    second = new_payment(till, second_order, first["code"])
    used, _ = till.scan("4", second), phone.notice(second["payment_id"])
    expect(used["decline_code"] == "code_used", "answer to a used code", used)
    expect(used["retryable"] and used["next_step"] == "new_code", "advice for a used code", used)

    third = new_payment(till, first_order, phone.payment_code())
    already_paid, _ = till.scan("5", third), phone.notice(third["payment_id"])
    expect(already_paid["decline_code"] == "already_paid", "answer to a paid order", already_paid)
    expect(already_paid["paid_by"] == first["payment_id"], "paid_by", already_paid)

    code = phone.payment_code()
    forged = till.scan("6", new_payment(till, third_order, code[:-1] + str((int(code[-1]) + 1) % 10)))
    expect(forged["decline_code"] == "code_invalid", "answer to a forged code", forged)

    codes = {"used": used["decline_code"], "already_paid_by": already_paid["paid_by"], "forged": forged["decline_code"]}
    return {"approved": approved, "notice": notice, "repeat_equal": repeat_equal, **codes}


def pay_with_pin(till: Device, phone: Device) -> Json:
    """Pay with a typed code, which always needs the PIN, and enter a wrong one first."""
    expect(phone.ready["pin_set"] is False, "PIN", phone.ready)
    change = {"request_id": str(uuid.uuid4()), "new_pin": PIN}
    for _ in range(2):
        expect(phone.ask("pin.set", change)["type"] == "pin.changed", "answer to a new PIN", change)

    payment = {**new_payment(till, new_order(), phone.payment_code()), "entry": "typed"}
    pending = till.ask("payment.scan", payment)
    expect(pending["type"] == "payment.pending" and pending["wallet_online"], "answer to a typed code", pending)
    required = phone.notice(payment["payment_id"], "payment.confirmation_required")
    query = till.ask("payment.query", {"reference": payment["reference"]})
    expect(query == {**pending, "reply_to": query["reply_to"]}, "answer to a query", query)

    confirmation = {name: required[name] for name in ("payment_id", "merchant_id", "version")}
    retry = phone.ask("payment.confirm", {**confirmation, "pin": WRONG_PIN})
    expect(retry["type"] == "payment.confirmation_required", "answer to a wrong PIN", retry)
    expect(retry["pin_tries_left"] == required["pin_tries_left"] - 1, "tries", (required, retry))
    repeat = phone.ask("payment.confirm", {**confirmation, "pin": WRONG_PIN})
    expect(repeat == {**retry, "reply_to": repeat["reply_to"]}, "answer to the same wrong PIN", (retry, repeat))

    paid = phone.ask("payment.confirm", {**confirmation, "version": retry["version"], "pin": PIN})
    expect(paid["type"] == "payment.result" and paid["status"] == "approved", "answer to the PIN", paid)
    at_till = till.receive("payment.result", payment_id=payment["payment_id"], reply_to=None)
    expect(at_till["version"] == paid["version"] > retry["version"], "versions", (retry, paid, at_till))
    return {"status": at_till["status"], "payment": at_till, "balance_minor": paid["balance_minor"]}


def reject(till: Device, phone: Device) -> Json:
    payment = {**new_payment(till, new_order(), phone.payment_code()), "entry": "typed"}
    till.send("payment.scan", "7", payment)
    till.receive("payment.pending", reply_to="7")
    phone.notice(payment["payment_id"], "payment.confirmation_required")
    rejected = phone.ask("payment.reject", {"payment_id": payment["payment_id"]})
    expect(rejected["decline_code"] == "customer_rejected", "answer to a rejection", rejected)
    return till.receive("payment.result", payment_id=payment["payment_id"], reply_to=None)


def refund(till: Device, phone: Device, payment: Json) -> Json:
    request = {"refund_id": str(uuid.uuid4()), "payment_id": payment["payment_id"], "amount_minor": 120}
    refunded, on_phone = (
        till.ask("refund.create", request),
        phone.receive("refund.result", refund_id=request["refund_id"]),
    )
    rest = payment["amount_minor"] - 120
    expect(refunded["refundable_minor"] == rest, "rest of a refunded payment", refunded)
    repeat = till.ask("refund.create", request)
    expect(repeat == {**refunded, "reply_to": repeat["reply_to"]}, "answer to the same refund", (refunded, repeat))
    over = till.ask("refund.create", {**request, "refund_id": str(uuid.uuid4()), "amount_minor": rest + 1})
    query = till.ask("payment.query", {"payment_id": payment["payment_id"]})
    expect(query["refunded_minor"] == 120, "answer to a query", query)
    return {"refunded_minor": query["refunded_minor"], "over": over["code"], "balance_minor": on_phone["balance_minor"]}


def cancel(till: Device, phone: Device, paid: Json) -> Json:
    """Cancel a paid payment, and one whose scan is sent after the cancel."""
    by_id = {"payment_id": paid["payment_id"]}
    canceled, on_phone = till.ask("payment.cancel", by_id), phone.receive("payment.result", **by_id, status="canceled")
    expect(canceled["status"] == "canceled" and canceled["version"] == 2, "answer to a cancel", canceled)
    repeat = till.ask("payment.cancel", by_id)
    expect(repeat == {**canceled, "reply_to": repeat["reply_to"]}, "answer to the same cancel", (canceled, repeat))

    late = new_payment(till, new_order(), phone.payment_code())
    tombstone = till.ask("payment.cancel", {"payment_id": late["payment_id"]})
    expect(tombstone["status"] == "canceled" and tombstone["amount_minor"] is None, "tombstone", tombstone)
    declined, _ = till.ask("payment.scan", late), phone.notice(late["payment_id"])
    expect(declined["version"] == 2, "version of a late scan", declined)
    return {"late": declined["decline_code"], "balance_minor": on_phone["balance_minor"]}


def lose_an_answer(till: Device, reconnect: Callable[[], Device], phone: Device) -> tuple[Device, Json]:
    """Send a scan, disconnect before the answer, and query the outcome after a reconnect."""
    payment = new_payment(till, new_order(), phone.payment_code())
    till.send("payment.scan", "8", payment)
    till.socket.close()
    till = reconnect()
    answer = till.ask("payment.query", {"payment_id": payment["payment_id"]})
    if answer["type"] == "error":
        expect(answer["code"] == "payment_unknown", "answer to a query", answer)
        answer = till.scan("9", payment)
    phone.notice(payment["payment_id"])
    return till, answer


def run(till: Device, reconnect: Callable[[], Device], phone: Device) -> Json:
    results = pay(till, phone)
    results["pin"] = pay_with_pin(till, phone)
    results["rejected"] = reject(till, phone)["decline_code"]
    till, recovered = lose_an_answer(till, reconnect, phone)
    results["recovered"] = recovered["status"]
    results["refund"] = refund(till, phone, results["pin"]["payment"])
    results["cancel"] = cancel(till, phone, results["approved"])
    results["recent"] = [payment["status"] for payment in till.ask("payments.recent", {"limit": 3})["payments"]]
    page = phone.ask("history", {"limit": 3})
    rest = phone.ask("history", {"limit": 50, "cursor": page["next_cursor"]})
    expect(rest["next_cursor"] is None, "end of the history", rest)
    results["history"] = [payment["status"] for payment in page["payments"]]
    ids = [payment["payment_id"] for payment in page["payments"] + rest["payments"]]
    expect(len(ids) == len(set(ids)), "repetition in the history", ids)
    results["payments"] = len(ids)
    return results


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit("usage: raw_client.py SERVER_URL TERMINAL_ACTIVATION_CODE WALLET_ACTIVATION_CODE")
    server = sys.argv[1].rstrip("/")
    try:
        terminal, wallet = activate(server, sys.argv[2], "terminal"), activate(server, sys.argv[3], "wallet")
        with ExitStack() as stack:
            phone = Device(server, wallet, stack)
            result = run(Device(server, terminal, stack), lambda: Device(server, terminal, stack), phone)
    except (OSError, ValueError, LookupError, WebSocketException) as error:
        sys.exit(f"raw_client: {type(error).__name__}: {error}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
