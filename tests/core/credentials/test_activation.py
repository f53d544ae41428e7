"""Activation codes as people type them, and the request and response bodies of an activation."""

from hashlib import sha256
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pos_server.core.credentials.activation import Activation, ActivationRequest, activation_code, activation_hash
from pos_server.core.credentials.device_keys import DeviceKind

QUICK = settings(max_examples=50)
REQUEST_ID = "018f0000-0000-7000-8000-000000000001"
CODES = st.binary(min_size=10, max_size=10).map(activation_code)


@pytest.mark.parametrize(
    ("random_bytes", "code"),
    [
        (bytes(10), "0000-0000-0000-0000"),
        (b"\xff" * 10, "ZZZZ-ZZZZ-ZZZZ-ZZZZ"),
        (bytes(9) + b"\x01", "0000-0000-0000-0001"),
        (b"\x80" + bytes(9), "G000-0000-0000-0000"),
        # RFC 4648 Base32 gives AEBA GBAF AYDQ QCIK for these bytes; Crockford's digits have the same positions.
        (bytes(range(1, 11)), "0410-6105-0R3G-G28A"),
    ],
    ids=["zeros", "ones", "lowest bit", "highest bit", "counting"],
)
def test_activation_code(random_bytes: bytes, code: str) -> None:
    assert activation_code(random_bytes) == code


@pytest.mark.parametrize("count", [0, 9, 11, 32])
def test_a_code_needs_ten_bytes(count: int) -> None:
    with pytest.raises(ValueError, match=r"^an activation code needs 10 random bytes, not \d+$"):
        activation_code(bytes(count))


@QUICK
@given(st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_different_bytes_make_different_codes(first: bytes, second: bytes) -> None:
    codes = activation_code(first), activation_code(second)
    assert (codes[0] == codes[1]) == (first == second)
    assert (activation_hash(codes[0]) == activation_hash(codes[1])) == (first == second)


@QUICK
@given(CODES)
def test_a_code_has_no_ambiguous_letters(code: str) -> None:
    groups = code.split("-")
    assert [len(group) for group in groups] == [4, 4, 4, 4]
    assert set(code) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ-")


def test_the_hash_is_sha256_of_the_normalized_code() -> None:
    assert activation_hash("0123-4567-89AB-CDEF") == sha256(b"0123456789ABCDEF").digest()


@pytest.mark.parametrize(
    "typed",
    [
        "0123-4567-89AB-CDEF",
        "0123456789ABCDEF",
        "0123 4567 89ab cdef",
        "  0123-4567-89AB-CDEF ",
        "OI23-4567-89AB-CDEF",
        "ol23-4567-89ab-cdef",
        "oL23-4567-89Ab-cDeF",
        "0-1-2-3-4-5-6-7-8-9-A-B-C-D-E-F",
    ],
)
def test_typed_variants_have_the_same_hash(typed: str) -> None:
    assert activation_hash(typed).hex() == "2125b2c332b1113aae9bfc5e9f7e3b4c91d828cb942c2df1eeb02502eccae9e9"


@pytest.mark.parametrize("typed", ["1123-4567-89AB-CDEF", "0123-4567-89AB-CDE", "0123-4567-89AB-CDEF0", "", "-"])
def test_different_codes_have_different_hashes(typed: str) -> None:
    assert activation_hash(typed) != activation_hash("0123-4567-89AB-CDEF")


@QUICK
@given(CODES, st.data())
def test_misread_letters_have_the_same_hash(code: str, data: st.DataObject) -> None:
    misread = {"0": "0Oo", "1": "1IiLl", "-": ["", "-", " "]}
    typed = "".join(data.draw(st.sampled_from(misread.get(letter, letter + letter.lower()))) for letter in code)
    assert activation_hash(typed) == activation_hash(code)


def test_a_request() -> None:
    request = ActivationRequest.model_validate_json(
        f'{{"activation_code": "0123-4567-89AB-CDEF", "request_id": "{REQUEST_ID}"}}'
    )
    assert request == ActivationRequest(activation_code="0123-4567-89AB-CDEF", request_id=UUID(REQUEST_ID))


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"activation_code": "SECRET"}',
        f'{{"request_id": "{REQUEST_ID}"}}',
        f'{{"activation_code": "", "request_id": "{REQUEST_ID}"}}',
        f'{{"activation_code": "{"SECRET" * 11}", "request_id": "{REQUEST_ID}"}}',
        f'{{"activation_code": 5, "request_id": "{REQUEST_ID}"}}',
        f'{{"activation_code": ["SECRET"], "request_id": "{REQUEST_ID}"}}',
        f'{{"activation_code": "SECRET\\ud800", "request_id": "{REQUEST_ID}"}}',
        '{"activation_code": "SECRET", "request_id": "SECRET"}',
        '{"activation_code": "SECRET", "request_id": 5}',
        f'{{"activation_code": "SECRET", "request_id": "{REQUEST_ID}", "more": "SECRET"}}',
    ],
    ids=[
        "empty",
        "null",
        "array",
        "no fields",
        "no request_id",
        "no code",
        "empty code",
        "code too long",
        "code a number",
        "code an array",
        "lone surrogate",
        "request_id not a UUID",
        "request_id a number",
        "unknown field",
    ],
)
def test_an_error_does_not_repeat_the_input(body: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ActivationRequest.model_validate_json(body)
    assert "SECRET" not in str(caught.value)


def test_an_activation_round_trips_through_json() -> None:
    activation = Activation(
        kind=DeviceKind.WALLET,
        number=1_000_000_001,
        slot=3,
        kid="k1",
        device_key="A" * 43 + "=",
        currency="EUR",
        name="Ada",
    )
    text = activation.model_dump_json()
    assert text == (
        '{"kind":"wallet","number":1000000001,"slot":3,"kid":"k1",'
        f'"device_key":"{"A" * 43}=","currency":"EUR","name":"Ada"}}'
    )
    assert Activation.model_validate_json(text) == activation
    newer = text[:-1] + ',"more":1}'
    assert Activation.model_validate_json(newer) == activation


def test_repr_hides_the_secrets() -> None:
    request = ActivationRequest(activation_code="SECRET", request_id=UUID(REQUEST_ID))
    activation = Activation(
        kind=DeviceKind.TERMINAL, number=7, slot=0, kid="k1", device_key="SECRET", currency="EUR", name="Till 1"
    )
    for body in (request, activation):
        assert "SECRET" not in repr(body)
        assert "SECRET" not in str(body)
