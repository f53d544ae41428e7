"""The sources of the master keys."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from pos_server.core.credentials.device_keys import DeviceId, DeviceKind, derive_device_key
from pos_server.master_keys import FILE_NAME, keyring_for
from pos_server.settings import SettingsError, load_settings, new_master_key


def test_a_server_with_an_embedded_postgres_creates_a_key_once(tmp_path: Path) -> None:
    first = keyring_for(load_settings(), tmp_path)
    assert keyring_for(load_settings(), tmp_path).keys == first.keys
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_servers_that_start_concurrently_use_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        keyrings = list(threads.map(lambda _: keyring_for(load_settings(), tmp_path), range(64)))
    assert len({keyring.keys["k1"] for keyring in keyrings}) == 1


def test_the_setting_takes_precedence(tmp_path: Path) -> None:
    assert keyring_for(load_settings(master_keys=new_master_key("mine")), tmp_path).current == "mine"
    assert not list(tmp_path.iterdir())


def test_with_an_external_database_the_setting_is_required() -> None:
    with pytest.raises(SettingsError, match="pos-server master-key"):
        keyring_for(load_settings(), None)


def test_the_cache_of_device_keys_is_bounded(tmp_path: Path) -> None:
    keyring = keyring_for(load_settings(device_keys_cached_max=2), tmp_path)
    devices = [DeviceId(DeviceKind.WALLET, 1_000_000_000, slot) for slot in range(3)]
    for _ in range(2):
        for device in devices:
            expected = derive_device_key(keyring.keys[keyring.current], device, 1)
            assert keyring.device_key(keyring.current, device, 1) == expected
            assert keyring.device_key(keyring.current, device, 2) != expected
    assert cast("Any", keyring.derive).cache_info().currsize == 2
