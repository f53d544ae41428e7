"""The secret that is hashed for a PIN, and weak PINs."""

import pytest

from pos_server.core.credentials.device_keys import Keyring
from pos_server.core.credentials.pins import is_weak, pin_secret

PEPPER = bytes(range(32))


def test_the_secret() -> None:
    """HMAC-SHA256 of "pin-1", the wallet's number in 8 bytes, and the digits; computed with OpenSSL."""
    assert (
        pin_secret(PEPPER, 1_000_000_001, "2580").hex()
        == "013d76f4c40e09918271e935b00eed0c53c172150d7b60fa4dea12225fb040bf"
    )


def test_the_pepper() -> None:
    keyring = Keyring({"k1": PEPPER, "k2": bytes(32)}, current="k1")
    pepper = keyring.pin_pepper("k1")
    assert pepper is not None
    assert pepper.hex() == "38a9686c0f07230c3b21daec8737e877bfb9b61f57d77e67f0b84efd38c46839"
    assert pepper != keyring.pin_pepper("k2")
    assert keyring.pin_pepper("retired") is None


@pytest.mark.parametrize(
    ("pepper", "number", "pin"),
    [(bytes(32), 1_000_000_001, "2580"), (PEPPER, 1_000_000_002, "2580"), (PEPPER, 1_000_000_001, "25800")],
    ids=["another pepper", "another wallet", "another PIN"],
)
def test_secrets_differ(pepper: bytes, number: int, pin: str) -> None:
    assert pin_secret(pepper, number, pin) != pin_secret(PEPPER, 1_000_000_001, "2580")


@pytest.mark.parametrize(
    ("pin", "weak"),
    [
        ("0000", True),
        ("777777", True),
        ("1234", True),
        ("123456789012", True),
        ("8901", True),
        ("4321", True),
        ("1098", True),
        ("2580", False),
        ("1233", False),
        ("1235", False),
        ("1122", False),
        ("1357", False),
        ("0001", False),
        ("123454", False),
    ],
)
def test_weak_pins(pin: str, weak: bool) -> None:
    assert is_weak(pin) is weak
