"""A till and a wallet that share no code with the server: written from docs/protocol.md and docs/payment-code.md only.

It pays once, then tries the same scan again, the used code, the paid order and a forged code. It prints what came back
as one JSON object. It ends with status 1 and a message on anything that the documents do not promise.
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
from contextlib import ExitStack
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from websockets.typing import Subprotocol

WAIT_S = 10.0
Json = dict[str, Any]


def expect(truth: bool, what: str, seen: object) -> None:
    if not truth:
        raise ValueError(f"unexpected {what}: {seen}")


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

    def receive(self, kind: str, **fields: str) -> Json:
        """The next message of this type with these fields. Others are ignored, but for an error."""
        deadline = time.monotonic() + WAIT_S
        while True:
            remaining_s = deadline - time.monotonic()
            expect(remaining_s > 0, "silence instead of", (kind, fields))
            message: Json = json.loads(self.socket.recv(timeout=remaining_s))
            expect(message["type"] != "error", f"error instead of {kind}", message)
            if message["type"] == kind and all(message[name] == value for name, value in fields.items()):
                return message

    def step_and_seq(self) -> tuple[int, int]:
        step = (time.time_ns() // 1_000_000 + self.offset_ms) // 30_000
        seq = 0 if step > self.last_used[0] else self.last_used[1] + 1
        expect(step >= self.last_used[0] and seq <= 9, "end of the codes", (step, seq))
        return step, seq

    def payment_code(self) -> str:
        step, seq = self.step_and_seq()
        digest = hmac.digest(self.key, b"pc1" + struct.pack(">QBQB", self.number, self.slot, step, seq), "sha256")
        return f"77{self.number:010d}{self.slot}{seq}{int.from_bytes(digest[:8], 'big') % 10**10:010d}"

    def notice(self, payment_id: str) -> Json:
        """Wait for the notice of a payment that is new to this wallet. It is a use of the code shown by now."""
        notice = self.receive("payment.result", payment_id=payment_id)
        self.last_used = self.step_and_seq()
        return notice

    def scan(self, message_id: str, payment: Json) -> Json:
        self.send("payment.scan", message_id, payment)
        return self.receive("payment.result", reply_to=message_id, payment_id=payment["payment_id"])


def run(till: Device, phone: Device) -> Json:
    def payment(order: str, code: str) -> Json:
        shared = {"amount_minor": 420, "currency": till.ready["currency"]}
        return {"payment_id": str(uuid.uuid4()), "reference": order, "code": code, **shared}

    first_order, second_order, third_order = (f"raw-{uuid.uuid4()}" for _ in range(3))
    first = payment(first_order, phone.payment_code())
    approved, notice = till.scan("2", first), phone.notice(first["payment_id"])
    expect(approved["status"] == notice["status"] == "approved", "first answer", (approved, notice))
    expect(notice["balance_minor"] == phone.ready["balance_minor"] - 420, "balance", (phone.ready, notice))

    repeat, repeat_notice = till.scan("3", first), phone.receive("payment.result", payment_id=first["payment_id"])
    repeat_equal = repeat == {**approved, "reply_to": "3"} and repeat_notice == notice
    expect(repeat_equal, "answer to the repeat", (repeat, repeat_notice))

    second = payment(second_order, first["code"])
    used, _ = till.scan("4", second), phone.notice(second["payment_id"])
    expect(used["decline_code"] == "code_used", "answer to a used code", used)

    third = payment(first_order, phone.payment_code())
    already_paid, _ = till.scan("5", third), phone.notice(third["payment_id"])
    expect(already_paid["decline_code"] == "already_paid", "answer to a paid order", already_paid)
    expect(already_paid["paid_by"] == first["payment_id"], "paid_by", already_paid)

    code = phone.payment_code()
    forged = till.scan("6", payment(third_order, code[:-1] + str((int(code[-1]) + 1) % 10)))
    expect(forged["decline_code"] == "code_invalid", "answer to a forged code", forged)

    codes = {"used": used["decline_code"], "already_paid_by": already_paid["paid_by"], "forged": forged["decline_code"]}
    return {"approved": approved, "notice": notice, "repeat_equal": repeat_equal, **codes}


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit("usage: raw_client.py SERVER_URL TERMINAL_ACTIVATION_CODE WALLET_ACTIVATION_CODE")
    server = sys.argv[1].rstrip("/")
    try:
        terminal, wallet = activate(server, sys.argv[2], "terminal"), activate(server, sys.argv[3], "wallet")
        with ExitStack() as stack:
            result = run(Device(server, terminal, stack), Device(server, wallet, stack))
    except (OSError, ValueError, LookupError, WebSocketException) as error:
        sys.exit(f"raw_client: {type(error).__name__}: {error}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
