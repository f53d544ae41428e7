"""Device keys and authentication MACs. The hex values were computed with OpenSSL, independently of this code."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pos_server.core.credentials.device_keys import (
    DEVICE_KEY_BYTES,
    DeviceId,
    DeviceKind,
    Keyring,
    authentication_mac,
    derive_device_key,
)

MASTER_KEY = bytes(range(32))
QUICK = settings(max_examples=50)
DEVICES = st.builds(DeviceId, st.sampled_from(DeviceKind), st.integers(0, 2**64 - 1), st.integers(0, 9))
GENERATIONS = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("device", "generation", "key"),
    [
        pytest.param(
            DeviceId(DeviceKind.WALLET, 1_000_000_001, 0),
            1,
            "c69156620e4710c7c6c60743b03eabfb6edbf9deff4a11b202dbfcd8a4269c12",
            id="wallet",
        ),
        pytest.param(
            DeviceId(DeviceKind.WALLET, 9_999_999_999, 9),
            4_294_967_295,
            "d1d6eb6951e973f8fcd0e079a86b06e3e7526d59e754c7f208f94436f359c61f",
            id="wallet, largest fields",
        ),
        pytest.param(
            DeviceId(DeviceKind.TERMINAL, 7),
            1,
            "88f9a3c27e790e314207247972cc661117aaeb673d0b848eebee0fdaba9aeff1",
            id="terminal",
        ),
        pytest.param(
            DeviceId(DeviceKind.TERMINAL, 7),
            2,
            "49c1048f7d0ba467f7b5eb3126e6eef05c54559cc7a6b2482351c6dbc43d2fd1",
            id="terminal, next generation",
        ),
    ],
)
def test_device_key(device: DeviceId, generation: int, key: str) -> None:
    assert derive_device_key(MASTER_KEY, device, generation).hex() == key
    assert Keyring({"k1": MASTER_KEY}, "k1").device_key("k1", device, generation) == bytes.fromhex(key)


def test_authentication_mac() -> None:
    mac = authentication_mac(bytes(range(32, 64)), nonce=bytes(range(100, 132)), number=1_000_000_001)
    assert mac.hex() == "4959b91a4df9dd98b008575fcfaae1603a824fe5a6b65bbd5a9fa0692d8e2d8e"


@QUICK
@given(DEVICES, GENERATIONS, DEVICES, GENERATIONS)
def test_keys_differ_by_device_and_generation(
    device: DeviceId, generation: int, other: DeviceId, other_generation: int
) -> None:
    key = derive_device_key(MASTER_KEY, device, generation)
    other_key = derive_device_key(MASTER_KEY, other, other_generation)
    assert len(key) == DEVICE_KEY_BYTES == 32
    assert (key == other_key) == ((device, generation) == (other, other_generation))


def test_every_master_key_in_the_ring_derives_keys() -> None:
    device = DeviceId(DeviceKind.WALLET, 1_000_000_001)
    ring = Keyring({"old": b"o" * 32, "new": b"n" * 32}, current="new")
    assert ring.device_key("old", device, 1) == derive_device_key(b"o" * 32, device, 1)
    assert ring.device_key("new", device, 1) == derive_device_key(b"n" * 32, device, 1)
    assert ring.device_key("old", device, 1) != ring.device_key("new", device, 1)


@pytest.mark.parametrize("kid", ["", "k0", "K1"])
def test_a_retired_master_key_derives_nothing(kid: str) -> None:
    ring = Keyring({"k1": MASTER_KEY}, "k1")
    assert ring.device_key(kid, DeviceId(DeviceKind.WALLET, 1_000_000_001), 1) is None


@pytest.mark.parametrize("show", [repr, str, "{}".format], ids=["repr", "str", "format"])
def test_repr_of_a_keyring_hides_the_keys(show: object) -> None:
    assert callable(show)
    ring = Keyring({"k2": b"SECRET" * 6, "k1": MASTER_KEY}, current="k2")
    assert show(ring) == "Keyring(kids=['k1', 'k2'], current='k2')"
