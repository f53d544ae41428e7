"""Records are what dataclasses are, but for how fast they are made."""

import pytest

from pos_server.core.book import DeviceStatus, WalletDevice
from pos_server.core.record import replace

DEVICE = WalletDevice(wallet_number=1, slot=2, kid="k1", generation=3, status=DeviceStatus.ACTIVE, spent_mark=4)


def test_a_copy_has_the_changes_and_leaves_the_old_one_alone() -> None:
    copy = replace(DEVICE, spent_mark=5)
    assert copy == WalletDevice(
        wallet_number=1, slot=2, kid="k1", generation=3, status=DeviceStatus.ACTIVE, spent_mark=5
    )
    assert DEVICE.spent_mark == 4


def test_a_field_that_there_is_not_is_an_error() -> None:
    with pytest.raises(AttributeError, match="spend_mark"):
        replace(DEVICE, spend_mark=5)  # type: ignore[call-arg]


def test_equal_records_have_equal_hashes() -> None:
    assert hash(replace(DEVICE)) == hash(DEVICE)
    assert hash(replace(DEVICE, slot=1)) != hash(DEVICE)
