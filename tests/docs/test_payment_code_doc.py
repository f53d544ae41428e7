"""docs/payment-code.md: vectors, tables and reference implementation match pos_server.core."""

import ast
import base64
import hmac
import json
import re
import struct
from typing import Any
from uuid import UUID

import pytest
import segno
import zxingcpp

from pos_server.core.credentials import payment_code
from pos_server.core.credentials.device_keys import DeviceId, DeviceKind, authentication_mac, derive_device_key
from pos_server.core.credentials.payment_code import CodeCheck
from pos_server.core.payments.declines import DeclineCode
from pos_server.core.payments.operations import Outcome
from pos_server.core.payments.payment import Purpose, Status
from pos_server.core.payments.rules import Risk
from pos_server.core.payments.snapshot import MerchantStatus, OpenPayment, TerminalStatus, WalletStatus
from pos_server.settings import Settings
from tests.copies import replace
from tests.docs.documents import read
from tests.docs.world import MERCHANT, RULES, WALLET, World, payment_of, verdict

DOCUMENT = read("payment-code.md")
VECTORS: dict[str, Any] = json.loads(DOCUMENT.section("Test vectors").fence("json"))
MASTER_KEYS = {name: bytes.fromhex(key) for name, key in VECTORS["master_keys"].items()}
DEVICE_KEYS = {vector["key"]: bytes.fromhex(vector["device_key"]) for vector in VECTORS["device_keys"]}
CODES: list[dict[str, Any]] = VECTORS["payment_codes"]
EXPIRED_STEPS = Settings.model_fields["code_expired_steps"].default


def reference() -> dict[str, Any]:
    """Return the names that the document's implementation defines."""
    names: dict[str, Any] = {}
    exec(DOCUMENT.section("Reference implementation").fence("python"), names)
    return names


@pytest.mark.parametrize("vector", VECTORS["device_keys"], ids=lambda vector: vector["key"])
def test_device_key_vectors(vector: dict[str, Any]) -> None:
    device = DeviceId(DeviceKind(vector["kind"]), vector["number"], vector["slot"])
    key = derive_device_key(MASTER_KEYS[vector["master_key"]], device, vector["generation"])
    assert key.hex() == vector["device_key"]


@pytest.mark.parametrize("vector", CODES, ids=lambda vector: vector["why"])
def test_payment_code_vectors(vector: dict[str, Any]) -> None:
    key = DEVICE_KEYS[vector["key"]]
    code, number, slot, step, seq = (vector[name] for name in ("code", "wallet_number", "slot", "step", "seq"))
    assert payment_code.make(key, number, slot, step, seq) == code
    parsed = payment_code.parse(code)
    assert parsed is not None
    assert (parsed.wallet_number, parsed.slot, parsed.seq) == (number, slot, seq)
    assert payment_code.check(parsed, key, step, EXPIRED_STEPS) == (CodeCheck.VALID, step)


def test_each_code_vector_uses_the_key_of_its_own_device() -> None:
    devices = {vector["key"]: (vector["kind"], vector["number"], vector["slot"]) for vector in VECTORS["device_keys"]}
    assert [("wallet", vector["wallet_number"], vector["slot"]) for vector in CODES] == [
        devices[vector["key"]] for vector in CODES
    ]


@pytest.mark.parametrize("vector", VECTORS["ws_auth"], ids=lambda vector: f"{vector['key']}-{vector['nonce'][:4]}")
def test_handshake_mac_vectors(vector: dict[str, Any]) -> None:
    mac = authentication_mac(DEVICE_KEYS[vector["key"]], bytes.fromhex(vector["nonce"]), vector["number"])
    assert mac.hex() == vector["mac"]


def test_vectors_cover_edge_cases() -> None:
    macs = [vector["code"][14:] for vector in CODES]
    digests = [
        hmac.digest(
            DEVICE_KEYS[vector["key"]],
            b"pc1" + struct.pack(">QBQB", vector["wallet_number"], vector["slot"], vector["step"], vector["seq"]),
            "sha256",
        )
        for vector in CODES
    ]
    assert len({vector["code"] for vector in CODES}) == len(CODES) >= 8
    assert any(mac.startswith("000") for mac in macs)
    assert any(digest[0] >= 128 for digest in digests)
    assert {vector["slot"] for vector in CODES} >= {0, 9}
    assert {vector["seq"] for vector in CODES} >= {0, 1, payment_code.SEQ_MAX}
    assert min(vector["wallet_number"] for vector in CODES) == payment_code.WALLET_NUMBER_MIN
    assert max(vector["wallet_number"] for vector in CODES) == payment_code.WALLET_NUMBER_MAX
    assert min(vector["step"] for vector in CODES) == 0
    assert max(vector["step"] for vector in CODES) >= 2**32
    assert {vector["kind"] for vector in VECTORS["device_keys"]} == set(DeviceKind)


def test_the_reference_implementation_reproduces_the_vectors() -> None:
    implementation = reference()
    for vector in VECTORS["device_keys"]:
        key = implementation["device_key"](
            MASTER_KEYS[vector["master_key"]], vector["kind"], vector["number"], vector["slot"], vector["generation"]
        )
        assert key.hex() == vector["device_key"]
    for vector in CODES:
        arguments = (vector["wallet_number"], vector["slot"], vector["step"], vector["seq"])
        assert implementation["payment_code"](DEVICE_KEYS[vector["key"]], *arguments) == vector["code"]
    for vector in VECTORS["ws_auth"]:
        mac = implementation["ws_auth"](DEVICE_KEYS[vector["key"]], bytes.fromhex(vector["nonce"]), vector["number"])
        assert mac.hex() == vector["mac"]


def test_the_reference_implementation_imports_only_hashing_and_packing() -> None:
    tree = ast.parse(DOCUMENT.section("Reference implementation").fence("python"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert all(isinstance(node, ast.Import) for node in imports)
    assert {alias.name for node in imports for alias in node.names} <= {"hmac", "hashlib", "struct"}


def test_the_example_computed_step_by_step() -> None:
    row = {row["What"]: row["Value"] for row in DOCUMENT.section("Mac").table("What", "Value")}
    key, step = bytes.fromhex(row["device key"]), int(row["step"])
    text = bytes.fromhex(row["signed text"])
    digest = hmac.digest(key, text, "sha256")
    assert key == DEVICE_KEYS["B"]
    assert payment_code.step_at(int(row["Unix time"])) == step
    assert text == b"pc1" + struct.pack(">QBQB", 1000000001, 0, step, 0)
    assert row["digest"] == digest.hex()
    assert row["first 8 bytes"] == digest[:8].hex()
    assert int(row["as an integer"]) == int.from_bytes(digest[:8])
    assert row["mac"] == f"{int.from_bytes(digest[:8]) % 10**10:010d}"
    assert row["code"] == payment_code.make(key, 1000000001, 0, step, 0) == CODES[0]["code"]
    assert f"has {len(text)} bytes: 3 + 8 + 1 + 8 + 1" in DOCUMENT.section("Mac").text


def test_the_fields_add_up_to_a_code() -> None:
    layout = DOCUMENT.section("Layout")
    end = 0
    for row in layout.table("Digits", "Length", "Field", "Value"):
        first, _, last = row["Digits"].partition("\N{EN DASH}")
        assert (int(first), int(last or first)) == (end + 1, end + int(row["Length"]))
        end = int(last or first)
    assert end == payment_code.CODE_DIGITS
    assert [row["Field"] for row in layout.table("Digits", "Length", "Field", "Value")] == [
        "prefix", "wallet number", "slot", "seq", "mac",
    ]  # fmt: skip
    example = re.search(r"Example: `([\d ]+)`", layout.text)
    assert example is not None
    assert example[1].replace(" ", "") == CODES[0]["code"]
    assert example[1].split(" ")[0] == payment_code.PREFIX


@pytest.mark.parametrize("behind", range(-4, EXPIRED_STEPS + 5))
def test_how_long_a_code_is_accepted(behind: int) -> None:
    table = DOCUMENT.section("How long a code is accepted").table("Server's step less the code's step", "Answer")
    answers = [row["Answer"] for row in table if behind in span(row["Server's step less the code's step"])]
    code = payment_code.parse(CODES[0]["code"])
    assert code is not None
    verdict, _ = payment_code.check(code, DEVICE_KEYS["B"], CODES[0]["step"] + behind, EXPIRED_STEPS)
    assert answers == [
        {
            CodeCheck.VALID: "accepted, if it is unused",
            CodeCheck.EXPIRED: "code_expired",
            CodeCheck.INVALID: "code_invalid",
        }[verdict]
    ]


def span(text: str) -> range:
    """Return the steps of a cell such as `-1 to 1` or `22 and above`."""
    numbers = [int(number) for number in re.findall(r"-?\d+", text.replace("\N{MINUS SIGN}", "-"))]
    if text.endswith("below"):
        return range(-1000, numbers[0] + 1)
    return range(numbers[0], 1000 if text.endswith("above") else numbers[1] + 1)


def outcome(case: str, world: World) -> tuple[Outcome, int]:
    """Scan one code so that the outcome is `case`. Returns the outcome and the code's mark."""
    step, device = payment_code.step_at(world.now_ms / 1000), world.snapshot.devices[WALLET, 0]
    mark = payment_code.spent_mark(step, 0)
    match case:
        case "terminal_disabled":
            world.change_till(terminal_status=TerminalStatus.DISABLED)
        case "merchant_inactive":
            world.change_till(merchant_status=MerchantStatus.INACTIVE)
        case "code_malformed":
            return world.scan(code=world.code()[:-1]), mark
        case "code_invalid":
            world.snapshot.devices[WALLET, 0] = replace(device, generation=2)
        case "code_expired":
            code = world.code()
            world.now_ms += 2 * payment_code.STEP_S * 1000
            return world.scan(code=code), mark
        case "code_used":
            code = world.code()
            world.snapshot.devices[WALLET, 0] = replace(device, spent_mark=mark)
            return world.scan(code=code), mark
        case "canceled":
            world.cancel(reference="order")
            return world.scan(reference="order"), mark
        case "already_paid" | "already_pending":
            status = Status.PENDING if case == "already_pending" else Status.APPROVED
            world.snapshot.open_payments[MERCHANT, "order"] = OpenPayment(UUID(int=9), status)
            return world.scan(reference="order"), mark
        case "wallet_frozen":
            world.change_wallet(status=WalletStatus.FROZEN)
        case "wallet_closed":
            world.change_wallet(status=WalletStatus.CLOSED)
        case "currency_mismatch":
            world.change_wallet(currency="USD")
        case "amount_over_limit":
            return world.scan(RULES.limits.payment_minor_max + 1), mark
        case "daily_limit":
            world.change_wallet(day_spent_minor=RULES.limits.day_minor_max, day_start_ms=world.now_ms)
        case "insufficient_funds":
            world.change_wallet(balance_minor=0)
        case "balance_limit":
            world.change_wallet(balance_minor=RULES.limits.balance_minor_max)
            return world.scan(1, purpose=Purpose.TOP_UP), mark
        case "risk_rejected":
            world.rules = replace(RULES, risk=lambda scan, wallet: Risk.REJECT)
        case "pending":
            return world.scan(typed=True), mark
        case "pin_wrong":
            world.rules = replace(RULES, pin_payment_failures_max=1)
            return world.confirm(world.pending(), right=False), mark
        case "pin_locked":
            world.change_wallet(pin_locked_until_ms=world.now_ms + 1)
            return world.scan(typed=True), mark
        case "customer_rejected":
            return world.reject(world.pending()), mark
    return world.scan(), mark


SPENDING = {
    row["Decision"]: row["Spent afterwards"]
    for row in DOCUMENT.section("Single use").table("Decision", "Spent afterwards")
}


@pytest.mark.parametrize("case", ["approved", "pending", *DeclineCode])
def test_decisions_that_spend_a_code(case: str) -> None:
    world = World()
    decided, mark = outcome(case, world)
    assert verdict(decided) == case
    assert SPENDING[case] == ("yes" if world.snapshot.devices[WALLET, 0].spent_mark >= mark else "no")


def test_the_table_lists_every_decision() -> None:
    assert list(SPENDING) == ["approved", "pending", *DeclineCode]


def test_a_code_spends_the_earlier_ones_of_its_device() -> None:
    world = World()
    outcome("approved", world)
    key = derive_device_key(MASTER_KEYS["M1"], DeviceId(DeviceKind.WALLET, WALLET, 0), 1)
    step = payment_code.step_at(world.now_ms / 1000)
    earlier = payment_code.make(key, WALLET, 0, step - 1, payment_code.SEQ_MAX)
    assert verdict(world.scan(code=earlier)) == "code_used"


def test_later_changes_of_a_payment_spend_no_other_code() -> None:
    """Therefore a wallet counts uses by `payment_id`."""
    world = World()
    pending = world.pending()
    spent = world.snapshot.devices[WALLET, 0].spent_mark
    paid = payment_of(world.confirm(pending))
    world.refund(paid, 1)
    world.cancel(world.pending().payment_id)
    assert world.snapshot.devices[WALLET, 0].spent_mark == spent + 1


def test_numbers_in_the_prose_match_the_code() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    forged_max = defaults["bad_codes_max"] + defaults["device_operations_max"] - 1
    for section, sentence in (
        ("Mac", f"step = floor(unix_time_s / {payment_code.STEP_S})"),
        ("Which code to show", f"A new step begins every {payment_code.STEP_S} s"),
        ("Which code to show", f"A step has at most {payment_code.SEQ_MAX + 1} codes"),
        ("How long a code is accepted", f"Its default is {defaults['code_expired_steps']}."),
        ("How long a code is accepted", f"more than {defaults['code_expired_steps'] + 1} steps old"),
        ("Security", f"After {defaults['bad_codes_max']} of them within {defaults['bad_codes_window_s']:.0f} s"),
        ("Security", f"at most {defaults['device_operations_max']} requests open, so at most {forged_max} forged"),
        ("Security", f"at most {forged_max} times a minute"),
        ("Security", f"{defaults['pin_free_minor_max']} minor units (`POS_PIN_FREE_MINOR_MAX`)"),
        (
            "Security",
            f"per day is {defaults['pin_free_day_minor_max']}, in {defaults['pin_free_day_count_max']} payments "
            "(`POS_PIN_FREE_DAY_MINOR_MAX`, `POS_PIN_FREE_DAY_COUNT_MAX`)",
        ),
    ):
        assert sentence in " ".join(DOCUMENT.section(section).text.split())


def test_symbols_have_the_stated_size() -> None:
    code = CODES[0]["code"]
    symbol = segno.make(code, version=1, error="q", mode="numeric", boost_error=False)
    assert (symbol.designator, symbol.symbol_size(border=0), symbol.symbol_size(border=4)) == (
        "1-Q",
        (21, 21),
        (29, 29),
    )
    segno.make("7" * 27, version=1, error="q", boost_error=False)
    with pytest.raises(segno.DataOverflowError):
        segno.make(code, version=1, error="h", boost_error=False)
    bars = zxingcpp.create_barcode(code, zxingcpp.BarcodeFormat.Code128)
    assert bars.to_image(scale=1, add_quiet_zones=False).shape[1] == 167
    assert bars.to_image(scale=1).shape[1] == 187


def test_the_activation_example_of_the_protocol_has_a_key_of_the_vectors() -> None:
    answer = json.loads(read("protocol.md").section("Activation answer").fence("json"))
    assert base64.b64decode(answer["device_key"], validate=True) == DEVICE_KEYS["F"]
